package rest

import (
	"context"
	"sync"
	"time"
)

const (
	// lingerFor is how long after the last question the interest in telemetry
	// stays: a command that is run again, or one that polls, finds it flowing.
	lingerFor = 15 * time.Second
	// firstWait bounds how long the first question waits for telemetry to come.
	firstWait = 500 * time.Millisecond
	// firstPoll is how often it looks meanwhile.
	firstPoll = 25 * time.Millisecond
)

// looker makes telemetry flow while questions come. Nobody's telemetry crosses
// the network while nobody looks, so the first question after a silence waits a
// moment for what the robots that are online have to say.
type looker struct {
	fleet Fleet

	mu      sync.Mutex
	closed  bool
	began   time.Time
	release func()
	linger  *time.Timer
}

// look calls once, which looks and reports whether all that it looks at has
// been heard: again and again until it has, or has had the time to be. What the
// last call has seen counts.
func (l *looker) look(ctx context.Context, once func() (heard bool)) {
	patience := firstWait - time.Since(l.touch())
	if once() || patience <= 0 {
		return
	}
	end := time.NewTimer(patience)
	defer end.Stop()
	poll := time.NewTicker(firstPoll)
	defer poll.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-end.C:
			once()
			return
		case <-poll.C:
			if once() {
				return
			}
		}
	}
}

// touch starts or prolongs the interest and says when it began.
func (l *looker) touch() time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return time.Time{}
	}
	if l.release != nil {
		l.linger.Reset(lingerFor)
		return l.began
	}
	_, l.release = l.fleet.Watch()
	l.began = time.Now()
	l.linger = time.AfterFunc(lingerFor, l.end)
	return l.began
}

func (l *looker) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.release != nil {
		l.linger.Stop()
		l.release()
		l.release = nil
	}
}

func (l *looker) close() {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	l.end()
}
