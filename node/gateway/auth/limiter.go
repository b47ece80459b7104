package auth

import (
	"container/list"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

const (
	// failuresPerSecond and failuresBurst bound how fast one remote may guess.
	failuresPerSecond = 0.5
	failuresBurst     = 10
	// triesPerSecond and triesBurst bound what one remote may cost.
	triesPerSecond = 50
	triesBurst     = 200
	// maxRemotes bounds the remembered remotes; the longest unseen is forgotten.
	maxRemotes = 1024
)

// Limiter slows remotes down that log in too often, above all those that fail.
// A script that logs in for every command is fine; one that guesses is not.
type Limiter struct {
	mu      sync.Mutex
	remotes map[string]*list.Element
	recent  *list.List // of *remote, most recently seen first
}

type remote struct {
	key      string
	failures *rate.Limiter
	tries    *rate.Limiter
}

// NewLimiter makes one that has seen nobody.
func NewLimiter() *Limiter {
	return &Limiter{remotes: map[string]*list.Element{}, recent: list.New()}
}

// Allow reports whether key may try now.
func (l *Limiter) Allow(key string, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := l.find(key)
	return r.failures.TokensAt(now) >= 1 && r.tries.AllowN(now, 1)
}

// Failed notes that key tried and was refused.
func (l *Limiter) Failed(key string, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.find(key).failures.AllowN(now, 1)
}

func (l *Limiter) find(key string) *remote {
	if e, there := l.remotes[key]; there {
		l.recent.MoveToFront(e)
		return e.Value.(*remote)
	}
	if l.recent.Len() >= maxRemotes {
		oldest := l.recent.Remove(l.recent.Back()).(*remote)
		delete(l.remotes, oldest.key)
	}
	r := &remote{key, rate.NewLimiter(failuresPerSecond, failuresBurst), rate.NewLimiter(triesPerSecond, triesBurst)}
	l.remotes[key] = l.recent.PushFront(r)
	return r
}

// RemoteKey is the key of an "ip:port": the address, or for IPv6 its /64, since
// one machine has all of that.
func RemoteKey(remoteAddr string) string {
	ap, err := netip.ParseAddrPort(remoteAddr)
	if err != nil {
		return "unknown"
	}
	a := ap.Addr().Unmap().WithZone("")
	if a.Is6() {
		if p, err := a.Prefix(64); err == nil {
			return p.String()
		}
	}
	return a.String()
}
