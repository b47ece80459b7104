package auth

import (
	"crypto/sha256"
	"sync"
	"time"
)

const (
	// maxCodes bounds the one-time codes that wait for use.
	maxCodes = 1024
	// maxNonces bounds the remembered nonces of the last ten minutes.
	maxNonces = 8192
)

// expiring is a bounded set of secrets, each with a value and an end. When it
// is full of living ones it refuses. Only hashes are held, so that neither a
// memory dump nor the time of a lookup gives a secret away.
type expiring[V any] struct {
	most int

	mu      sync.Mutex
	entries map[[sha256.Size]byte]entry[V]
}

type entry[V any] struct {
	value V
	ends  time.Time
}

func newExpiring[V any](most int) *expiring[V] {
	return &expiring[V]{most: most, entries: map[[sha256.Size]byte]entry[V]{}}
}

// added is what add did.
type added int

const (
	ok added = iota
	known
	full
)

// add remembers secret until ends, unless it is known already or there is no room.
func (x *expiring[V]) add(secret string, value V, now, ends time.Time) added {
	hash := sha256.Sum256([]byte(secret))
	x.mu.Lock()
	defer x.mu.Unlock()
	if e, there := x.entries[hash]; there && now.Before(e.ends) {
		return known
	}
	if len(x.entries) >= x.most {
		for h, e := range x.entries {
			if !now.Before(e.ends) {
				delete(x.entries, h)
			}
		}
	}
	if len(x.entries) >= x.most {
		return full
	}
	x.entries[hash] = entry[V]{value, ends}
	return ok
}

// take removes secret and returns its value: of two takers one wins.
func (x *expiring[V]) take(secret string, now time.Time) (V, bool) {
	hash := sha256.Sum256([]byte(secret))
	x.mu.Lock()
	defer x.mu.Unlock()
	e, there := x.entries[hash]
	delete(x.entries, hash)
	return e.value, there && now.Before(e.ends)
}
