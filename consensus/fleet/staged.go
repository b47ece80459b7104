package fleet

import "strings"

// fewChanges is up to how many changes are looked through one by one; with more
// of them they have an index.
const fewChanges = 8

// staged is one map of the state with changes that are not made yet. The zero
// value of V stands for "is not there".
type staged[K, V comparable] struct {
	base map[K]V
	// changes has one element for each key that was changed, in the order in which
	// they first were. A list rather than a map: most transactions change little,
	// and what a map costs follows the most it ever had.
	changes []change[K, V]
	// index finds the places in changes, when there are more than fewChanges.
	index map[K]int
	// undo restores changes to what it was when the current batch began.
	undo []undo[V]
}

type change[K, V comparable] struct {
	key   K
	value V
}

// undo is what stood at a place of changes before; fresh says that there was no
// such place yet.
type undo[V comparable] struct {
	at    int
	old   V
	fresh bool
}

func stage[K, V comparable](base map[K]V) staged[K, V] { return staged[K, V]{base: base} }

// find is the place of k in changes, or -1.
func (t *staged[K, V]) find(k K) int {
	if len(t.changes) > fewChanges {
		if at, ok := t.index[k]; ok {
			return at
		}
		return -1
	}
	for i := len(t.changes) - 1; i >= 0; i-- {
		if t.changes[i].key == k {
			return i
		}
	}
	return -1
}

func (t *staged[K, V]) get(k K) V {
	if at := t.find(k); at >= 0 {
		return t.changes[at].value
	}
	return t.base[k]
}

func (t *staged[K, V]) put(k K, v V) {
	if at := t.find(k); at >= 0 {
		t.undo = append(t.undo, undo[V]{at: at, old: t.changes[at].value})
		t.changes[at].value = v
		return
	}
	at := len(t.changes)
	t.undo = append(t.undo, undo[V]{at: at, fresh: true})
	t.changes = append(t.changes, change[K, V]{k, v})
	switch {
	case at == fewChanges:
		if t.index == nil {
			t.index = make(map[K]int, 4*fewChanges)
		}
		for i := range t.changes {
			t.index[t.changes[i].key] = i
		}
	case at > fewChanges:
		t.index[k] = at
	}
}

func (t *staged[K, V]) remove(k K) {
	var none V
	t.put(k, none)
}

// count is how many keys there are.
func (t *staged[K, V]) count() int {
	var none V
	n := len(t.base)
	for _, c := range t.changes {
		_, was := t.base[c.key]
		switch {
		case was && c.value == none:
			n--
		case !was && c.value != none:
			n++
		}
	}
	return n
}

// each calls f with every key and value, in no order.
func (t *staged[K, V]) each(f func(K, V)) {
	var none V
	for k, v := range t.base {
		if t.find(k) < 0 {
			f(k, v)
		}
	}
	for _, c := range t.changes {
		if c.value != none {
			f(c.key, c.value)
		}
	}
}

// keep makes the current batch's changes part of the transaction.
func (t *staged[K, V]) keep() { t.undo = t.undo[:0] }

// revert takes the current batch's changes back. Fresh places are the last ones,
// and the newest is undone first.
func (t *staged[K, V]) revert() {
	for i := len(t.undo) - 1; i >= 0; i-- {
		u := t.undo[i]
		if !u.fresh {
			t.changes[u.at].value = u.old
			continue
		}
		if u.at > fewChanges {
			delete(t.index, t.changes[u.at].key)
		} else if u.at == fewChanges {
			clear(t.index)
		}
		t.changes = t.changes[:u.at]
	}
	t.undo = t.undo[:0]
}

// commit makes all changes in the state itself.
func (t *staged[K, V]) commit() {
	var none V
	for _, c := range t.changes {
		if c.value == none {
			delete(t.base, c.key)
		} else {
			t.base[c.key] = c.value
		}
	}
	t.discard()
}

func (t *staged[K, V]) discard() {
	if len(t.changes) > fewChanges {
		clear(t.index)
	}
	clear(t.changes) // so that nothing is kept alive
	t.changes = t.changes[:0]
	t.undo = t.undo[:0]
}

// counters is what staged is, for the versions of streams: there are many, none
// ever goes, and nearly every change is of one that is there.
type counters struct {
	base    map[string]*counter
	changes staged[string, counted]
}

// counter is the number of events of a stream. Only commit changes it.
type counter struct{ n uint64 }

// counted is a changed counter; at is nil for one that is new.
type counted struct {
	at *counter
	n  uint64
}

func (t *counters) get(stream string) uint64 {
	if c := t.changes.get(stream); c.n > 0 {
		return c.n
	}
	if c := t.base[stream]; c != nil {
		return c.n
	}
	return 0
}

func (t *counters) put(stream string, n uint64) {
	t.changes.put(stream, counted{t.base[stream], n})
}

func (t *counters) keep()    { t.changes.keep() }
func (t *counters) revert()  { t.changes.revert() }
func (t *counters) discard() { t.changes.discard() }

func (t *counters) commit() {
	for _, c := range t.changes.changes {
		if c.value.at != nil {
			c.value.at.n = c.value.n
		} else {
			t.base[strings.Clone(c.key)] = &counter{c.value.n} // not a part of some entry
		}
	}
	t.discard()
}
