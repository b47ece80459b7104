package index

import "sync"

// Index answers questions about the events of one file: a [Memory] or a [File].
type Index interface {
	// ask puts a question, which may be put twice, to what can answer it. indexed is
	// false if the index had to be made anew for it.
	ask(r *Reader, question func(rows) error) (indexed bool, err error)
}

// rows is an index, in memory or in a file. Errors are errUnusable.
type rows interface {
	// head says what is in it.
	head() head
	// keyed adds to set the events whose key matches.
	keyed(kind int, p keyPattern, set bitmap) error
	// timed removes from set the events before from or after until, in milliseconds.
	timed(from, until int64, set bitmap) error
	// place says where events lie, given their positions.
	place(positions []int) ([]Place, error)
}

// head is what is kept in memory of the index of a full file.
type head struct {
	count int
	// first and last are the earliest and the latest time, in milliseconds.
	first, last int64
	// sieve says which values of the keys are not there. Nil lets all through.
	sieve sieve
}

// Wanted says which events of one file are asked for.
type Wanted struct {
	Filter
	// Lo and Hi bound the positions: from Lo to before Hi. Both are from 0 to the
	// number of events.
	Lo, Hi int
	// Most is the most events wanted.
	Most int
	// Newest wants the last ones, in descending order. Otherwise the first ones
	// come, in ascending order.
	Newest bool
}

// Place is where an event lies in its file.
type Place struct {
	Position int
	// Offset is where it begins, in bytes.
	Offset uint32
	// Room is how many bytes it has at most.
	Room uint32
	// Sum is the CRC-32C of the bytes that it was added with.
	Sum uint32
}

// Readers gives readers for the indexes of one log: what they read into is used
// again, and one index at a time is made anew. The zero value is ready. It is for
// any goroutine.
type Readers struct {
	// making is held while an index is made anew.
	making sync.Mutex
	free   sync.Pool
}

// Reader puts one question to one index after another. It is for one goroutine.
type Reader struct {
	of    *Readers
	pages pages
}

// Get gives a reader, to be released after the question.
func (s *Readers) Get() *Reader {
	if r, ok := s.free.Get().(*Reader); ok {
		return r
	}
	return &Reader{of: s}
}

// Release gives the reader back. It must not be used any more.
func (r *Reader) Release() {
	r.pages.open(nil, 0)
	r.of.free.Put(r)
}

// Pick gives the positions of the events wanted. indexed is false if the index had
// to be made anew for it; errors are those of making it.
func (r *Reader) Pick(x Index, w *Wanted) (positions []int, indexed bool, err error) {
	indexed, err = x.ask(r, func(x rows) error {
		set, err := match(x, w)
		positions = set.pick(w.Most, w.Newest)
		return err
	})
	return positions, indexed, err
}

// Find is Pick and gives where these events lie.
func (r *Reader) Find(x Index, w *Wanted) (places []Place, indexed bool, err error) {
	indexed, err = x.ask(r, func(x rows) error {
		places = nil
		set, err := match(x, w)
		if err != nil || set == nil {
			return err
		}
		places, err = x.place(set.pick(w.Most, w.Newest))
		return err
	})
	return places, indexed, err
}

// Last gives the latest time of an event, in milliseconds since 1970. Errors are
// those of making the index anew.
func (r *Reader) Last(x Index) (millis int64, err error) {
	_, err = x.ask(r, func(x rows) error {
		millis = x.head().last
		return nil
	})
	return millis, err
}

// match gives the events from position Lo to before Hi that pass the filter; nil
// when it is sure that there are none.
func match(x rows, w *Wanted) (bitmap, error) {
	head := x.head()
	from, until := w.bounds()
	if head.last < from || head.first > until || w.Lo >= w.Hi {
		return nil, nil
	}
	patterns := w.keyPatterns()
	for kind, p := range patterns {
		if p.text != "" && !isFamily(p.text, p.separator) && !head.sieve.mayHave(kind, p.text) {
			return nil, nil
		}
	}
	set := newBitmap(head.count)
	set.fill(w.Lo, w.Hi)
	for kind, p := range patterns {
		if p.text == "" {
			continue
		}
		matching := newBitmap(head.count)
		if err := x.keyed(kind, p, matching); err != nil {
			return nil, err
		}
		if set.and(matching); set.count() == 0 {
			return nil, nil
		}
	}
	if head.first < from || head.last > until {
		if err := x.timed(from, until, set); err != nil {
			return nil, err
		}
	}
	return set, nil
}
