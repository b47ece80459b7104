package telemetry

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// looker is an Interest that a test switches.
type looker struct {
	mu      sync.Mutex
	looks   bool
	changed chan struct{}
}

func (l *looker) Interested() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.looks
}

func (l *looker) InterestChanged() <-chan struct{} { return l.changed }

func (l *looker) set(looks bool) {
	l.mu.Lock()
	l.looks = looks
	l.mu.Unlock()
	select {
	case l.changed <- struct{}{}:
	default:
	}
}

// rig runs a Sampler in virtual time on a fixture machine.
type rig struct {
	machine
	looker *looker
	log    strings.Builder
	stop   func()

	mu    sync.Mutex
	count int // publications so far
	last  Sample
}

func newRig(t *testing.T) *rig {
	r := &rig{machine: newMachine(t), looker: &looker{changed: make(chan struct{}, 1)}}
	began := time.Now()
	ctx, cancel := context.WithCancel(t.Context())
	log := slog.New(slog.NewTextHandler(&r.log, nil))
	s := NewSampler(r.reader(began), r.looker, log)
	ended := make(chan error)
	go func() {
		ended <- s.Run(ctx, r.publish)
	}()
	r.stop = func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run ended with %v", err)
		}
	}
	return r
}

func (r *rig) publish(s Sample) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.count++
	r.last = s
}

func (r *rig) published() (int, Sample) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.count, r.last
}

// after lets virtual time pass and the sampler settle; it returns how many were
// published in it.
func (r *rig) after(d time.Duration) int {
	before, _ := r.published()
	time.Sleep(d)
	synctest.Wait()
	now, _ := r.published()
	return now - before
}

func TestSamplerIsQuietWhenNobodyLooks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		defer r.stop()
		if n := r.after(2 * time.Second); n != 1 {
			t.Fatalf("%d publications in the first two seconds, want the first sample", n)
		}
		if n := r.after(time.Hour); n != 0 {
			t.Fatalf("%d publications of an unchanged machine that nobody looks at", n)
		}
		r.write("proc/loadavg", "9 9 9 1/1 1\n")
		if n := r.after(idleEvery); n != 1 {
			t.Fatalf("%d publications: a significant change is not told within 30 s", n)
		}
		if _, last := r.published(); last.Load1 != 9 {
			t.Fatalf("told a load of %v, want 9", last.Load1)
		}
	})
}

func TestSamplerWakesAtOnceWhenSomebodyLooks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		defer r.stop()
		r.after(5 * time.Second)
		r.looker.set(true)
		if n := r.after(time.Millisecond); n != 1 {
			t.Fatalf("%d publications when somebody began to look, want one at once", n)
		}
		if n := r.after(refreshEvery + watchedEvery); n != 1 {
			t.Fatalf("%d publications of an unchanged machine in 12 s of watching, want one", n)
		}
		r.write("proc/loadavg", "9 9 9 1/1 1\n")
		if n := r.after(watchedEvery); n != 1 {
			t.Fatalf("%d publications, want the change within 2 s", n)
		}
		r.looker.set(false)
		if n := r.after(idleEvery - time.Second); n != 0 {
			t.Fatalf("%d publications after the last looker left", n)
		}
	})
}

func TestSamplerComplainsOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		good := "0.75 0.50 0.25 1/200 4242\n"
		r.write("proc/loadavg", "broken")
		r.looker.set(true)
		r.after(time.Minute)
		r.write("proc/loadavg", good)
		r.after(time.Minute)
		r.stop()
		if n := strings.Count(r.log.String(), "cannot be read"); n != 1 {
			t.Fatalf("%d complaints about one failing source in a minute:\n%s", n, r.log.String())
		}
		if n := strings.Count(r.log.String(), "can be read again"); n != 1 {
			t.Fatalf("the recovery was logged %d times", n)
		}
	})
}
