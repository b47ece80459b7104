package index

import "math/bits"

// bitmap is a set of the events of one file, by their position in it.
type bitmap []uint64

func newBitmap(n int) bitmap { return make(bitmap, (n+63)/64) }

// fill adds everything from lo to before hi.
func (b bitmap) fill(lo, hi int) {
	for i := lo; i < hi; {
		if i%64 == 0 && hi-i >= 64 {
			b[i/64] = ^uint64(0)
			i += 64
			continue
		}
		b.set(i)
		i++
	}
}

func (b bitmap) set(i int)      { b[i/64] |= 1 << (i % 64) }
func (b bitmap) unset(i int)    { b[i/64] &^= 1 << (i % 64) }
func (b bitmap) has(i int) bool { return b[i/64]&(1<<(i%64)) != 0 }

// and keeps what is in other too.
func (b bitmap) and(other bitmap) {
	for i := range b {
		b[i] &= other[i]
	}
}

// bound removes i if t is before from or after until.
func (b bitmap) bound(i int, t, from, until int64) {
	if t < from || t > until {
		b.unset(i)
	}
}

func (b bitmap) count() (n int) {
	for _, w := range b {
		n += bits.OnesCount64(w)
	}
	return n
}

// pick gives the first n positions, or the last n in descending order.
func (b bitmap) pick(n int, newest bool) []int {
	picked := make([]int, 0, min(n, 256))
	for i := range b {
		w, base := b[i], i*64
		if newest {
			base = (len(b) - 1 - i) * 64
			w = b[len(b)-1-i]
		}
		for ; w != 0 && len(picked) < n; w &^= 1 << (picked[len(picked)-1] - base) {
			bit := bits.TrailingZeros64(w)
			if newest {
				bit = bits.Len64(w) - 1
			}
			picked = append(picked, base+bit)
		}
	}
	return picked
}
