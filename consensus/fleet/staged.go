package fleet

// staged is one map of the state with changes that are not made yet. The zero
// value of V stands for "is not there".
type staged[K, V comparable] struct {
	base    map[K]V
	changes map[K]V
	// undo restores changes to what it was when the current batch began.
	undo []undo[K, V]
}

type undo[K, V comparable] struct {
	key     K
	old     V
	changed bool
}

func stage[K, V comparable](base map[K]V) staged[K, V] { return staged[K, V]{base: base} }

func (t *staged[K, V]) get(k K) V {
	if v, ok := t.changes[k]; ok {
		return v
	}
	return t.base[k]
}

func (t *staged[K, V]) put(k K, v V) {
	if t.changes == nil {
		t.changes = map[K]V{}
	}
	old, changed := t.changes[k]
	t.undo = append(t.undo, undo[K, V]{k, old, changed})
	t.changes[k] = v
}

func (t *staged[K, V]) remove(k K) {
	var none V
	t.put(k, none)
}

// count is how many keys there are.
func (t *staged[K, V]) count() int {
	var none V
	n := len(t.base)
	for k, v := range t.changes {
		_, was := t.base[k]
		switch {
		case was && v == none:
			n--
		case !was && v != none:
			n++
		}
	}
	return n
}

// each calls f with every key and value, in no order.
func (t *staged[K, V]) each(f func(K, V)) {
	var none V
	for k, v := range t.base {
		if _, changed := t.changes[k]; !changed {
			f(k, v)
		}
	}
	for k, v := range t.changes {
		if v != none {
			f(k, v)
		}
	}
}

// keep makes the current batch's changes part of the transaction.
func (t *staged[K, V]) keep() { t.undo = t.undo[:0] }

// revert takes the current batch's changes back.
func (t *staged[K, V]) revert() {
	for i := len(t.undo) - 1; i >= 0; i-- {
		if u := t.undo[i]; u.changed {
			t.changes[u.key] = u.old
		} else {
			delete(t.changes, u.key)
		}
	}
	t.undo = t.undo[:0]
}

// commit makes all changes in the state itself.
func (t *staged[K, V]) commit() {
	var none V
	for k, v := range t.changes {
		if v == none {
			delete(t.base, k)
		} else {
			t.base[k] = v
		}
	}
	t.discard()
}

func (t *staged[K, V]) discard() {
	clear(t.changes)
	t.undo = t.undo[:0]
}
