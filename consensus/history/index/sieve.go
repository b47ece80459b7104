package index

import "hash/fnv"

// sieve is a Bloom filter over the values of the keys of a file: what it does
// not have is not there. So most files need not be looked into for something
// rare. It is in the index file, so its form is fixed: FNV-1a, and bits in the
// order of bytes.
type sieve []byte

const (
	// sieveBits is for each value, of which sieveHashes are set: one value in 200
	// that is not there is let through.
	sieveBits   = 12
	sieveHashes = 4
	// maxSieve bounds the bytes of one; with more values it lets more through.
	maxSieve = 4 << 10
)

// newSieve makes the sieve of an index.
func (m *Memory) newSieve() sieve {
	names := 0
	for i := range m.keys {
		names += len(m.keys[i].names)
	}
	s := make(sieve, min((names*sieveBits+7)/8, maxSieve))
	for kind := range m.keys {
		for _, name := range m.keys[kind].names {
			s.each(kind, name, func(at uint64) bool {
				s[at/8] |= 1 << (at % 8)
				return true
			})
		}
	}
	return s
}

// mayHave reports false when the value is not there.
func (s sieve) mayHave(kind int, name string) bool {
	found := true
	s.each(kind, name, func(at uint64) bool {
		found = s[at/8]&(1<<(at%8)) != 0
		return found
	})
	return found
}

// each calls f with the bits of a value until it returns false.
func (s sieve) each(kind int, name string, f func(at uint64) bool) {
	if len(s) == 0 {
		return
	}
	h := fnv.New64a()
	h.Write([]byte{byte(kind)})
	h.Write([]byte(name))
	sum := h.Sum64()
	step := sum>>32 | 1
	for range sieveHashes {
		if !f(sum % uint64(len(s)*8)) {
			return
		}
		sum += step
	}
}
