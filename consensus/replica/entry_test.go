package replica

import (
	"bytes"
	"errors"
	"math/rand"
	"reflect"
	"strings"
	"testing"

	"skein/consensus/event"
	"skein/consensus/fleet/fleettest"
)

func TestEntryRoundTrip(t *testing.T) {
	run := fleettest.New(rand.New(rand.NewSource(4)).Intn)
	e := Entry{TimeMillis: 1_700_000_000_123, Batches: []event.Batch{fleettest.Genesis()}}
	for range 60 {
		e.Batches = append(e.Batches, run.Next())
	}
	data, err := EncodeEntry(e)
	if err != nil {
		t.Fatal(err)
	}
	back, err := DecodeEntry(data)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(back, e) {
		t.Errorf("came back as\n%+v\nwas\n%+v", back, e)
	}
	for cut := range data {
		if _, err := DecodeEntry(data[:cut]); !errors.Is(err, ErrBadEntry) {
			t.Fatalf("cut at %d: %v", cut, err)
		}
	}
	if _, err := DecodeEntry(append(data, 0)); !errors.Is(err, ErrBadEntry) {
		t.Errorf("with more behind: %v", err)
	}
	data[0] = 2
	if _, err := DecodeEntry(data); !errors.Is(err, ErrBadEntry) || !strings.Contains(err.Error(), "upgrade") {
		t.Errorf("another format: %v", err)
	}
}

func TestEntryBounds(t *testing.T) {
	group := func(drafts int, size int) event.Batch {
		b := event.Batch{Actor: fleettest.Admin("ada")}
		d := event.GroupCreated{}.Draft("g")
		d.Data = bytes.Repeat([]byte(" "), size)
		for range drafts {
			b.Drafts = append(b.Drafts, d)
		}
		return b
	}
	many := func(n int) (all []event.Batch) {
		for range n {
			all = append(all, group(1, 2))
		}
		return all
	}
	for name, c := range map[string]struct {
		entry Entry
		fits  bool
	}{
		"no batch":         {Entry{}, false},
		"most batches":     {Entry{Batches: many(event.MaxDrafts)}, true},
		"too many batches": {Entry{Batches: many(event.MaxDrafts + 1)}, false},
		"most drafts":      {Entry{Batches: []event.Batch{group(event.MaxDrafts-1, 2), group(1, 2)}}, true},
		"too many drafts":  {Entry{Batches: []event.Batch{group(event.MaxDrafts, 2), group(1, 2)}}, false},
		"large":            {Entry{Batches: []event.Batch{group(60, event.MaxData), group(60, event.MaxData)}}, true},
		"too large":        {Entry{Batches: []event.Batch{group(64, event.MaxData), group(65, event.MaxData)}}, false},
		"last time":        {Entry{TimeMillis: event.MaxTimeMillis, Batches: many(1)}, true},
		"after time":       {Entry{TimeMillis: event.MaxTimeMillis + 1, Batches: many(1)}, false},
		"before time":      {Entry{TimeMillis: -1, Batches: many(1)}, false},
	} {
		data, err := EncodeEntry(c.entry)
		if (err == nil) != c.fits {
			t.Errorf("%s: %v", name, err)
		}
		if err == nil {
			if _, err := DecodeEntry(data); err != nil {
				t.Errorf("%s: encoded and not decoded: %v", name, err)
			}
		}
	}
}

// The largest entry there can be makes a record that fits its cap.
func TestLargestEntryFitsARecord(t *testing.T) {
	r := openAt(t, t.TempDir(), Options{})
	l := newLeader(nil)
	l.feed(t, r)
	b := event.Batch{Actor: fleettest.Admin("ada"), Producer: event.Producer{Node: fleettest.Node(0), Boot: 1 << 60, N: 1 << 60}}
	size := MaxEntryBytes/event.MaxDrafts - 400
	for i := range event.MaxDrafts {
		d := event.GroupCreated{Description: strings.Repeat("\"", 200)}.Draft(strings.Repeat("g", 60) + string(rune('A'+i/26)) + string(rune('a'+i%26)))
		d.Cause = strings.Repeat("\\", event.MaxCause)
		d.Data = append(bytes.Repeat([]byte(" "), size-len(d.Data)-300), d.Data...)
		b.Drafts = append(b.Drafts, d)
	}
	half := b
	b.Drafts, half.Drafts = b.Drafts[:256], b.Drafts[256:]
	half.Producer.N++
	out, err := r.ApplyEntry(2, 3, l.add(b, half))
	if err != nil || out[0].Err != nil || out[1].Err != nil {
		t.Fatal(err, out)
	}
}

// Whatever DecodeEntry accepts can be encoded again to the same content, and
// applied without a panic.
func FuzzDecodeEntry(f *testing.F) {
	l := newLeader(rand.New(rand.NewSource(5)).Intn)
	for range 10 {
		l.next(3)
	}
	for _, data := range l.entries {
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		e, err := DecodeEntry(data)
		if err != nil {
			return
		}
		if again, err := EncodeEntry(e); err == nil {
			back, err := DecodeEntry(again)
			if err != nil || !reflect.DeepEqual(back, e) {
				t.Fatalf("%+v came back as %+v: %v", e, back, err)
			}
		}
		for _, b := range e.Batches {
			_ = b.Validate()
		}
	})
}

// Whatever is read as a snapshot is what its state encodes to.
func FuzzReadImage(f *testing.F) {
	_, r := filled(f, 5)
	snap := snapshot(f, r)
	f.Add(snap)
	f.Add(snap[:len(snap)/2])
	f.Add(snap[snapshotHeader:])
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) >= bodyHeader { // past the checksum, which no fuzzer finds
			_, _ = decodeBody(data)
		}
		i, err := readImage(bytes.NewReader(data))
		if err != nil {
			return
		}
		again, err := i.encode()
		if err != nil || !bytes.HasPrefix(data, again) {
			t.Fatalf("%q became %q: %v", data, again, err)
		}
	})
}
