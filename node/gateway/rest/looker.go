package rest

import (
	"context"
	"sync"
	"time"

	"skein/node/gateway/view"
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

// look is a picture with telemetry, as far as it comes in time.
func (l *looker) look(ctx context.Context) view.Picture {
	patience := firstWait - time.Since(l.touch())
	picture := l.fleet.Look()
	if patience <= 0 || heardAll(picture) {
		return picture
	}
	end := time.NewTimer(patience)
	defer end.Stop()
	poll := time.NewTicker(firstPoll)
	defer poll.Stop()
	for {
		select {
		case <-ctx.Done():
			return picture
		case <-end.C:
			return l.fleet.Look()
		case <-poll.C:
			if picture = l.fleet.Look(); heardAll(picture) {
				return picture
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

// heardAll reports whether every robot that is online has said something.
func heardAll(p view.Picture) bool {
	for _, r := range p.Robots {
		if r.Status == view.Online && r.Telemetry == nil {
			return false
		}
	}
	return true
}
