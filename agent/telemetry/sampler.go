package telemetry

import (
	"context"
	"log/slog"
	"time"
)

const (
	// watchedEvery and idleEvery are the times between samples while somebody
	// looks and while nobody does.
	watchedEvery = 2 * time.Second
	idleEvery    = 30 * time.Second
	// firstAfter is when the first sample is taken, unless somebody looks before.
	firstAfter = time.Second
	// refreshEvery is the longest silence towards those who look.
	refreshEvery = 10 * time.Second
)

// Interest says whether anybody looks at this robot.
type Interest interface {
	Interested() bool
	// InterestChanged signals, coalesced, that Interested may answer otherwise.
	InterestChanged() <-chan struct{}
}

// Sampler is the loop that samples and publishes.
type Sampler struct {
	reader   *Reader
	interest Interest
	log      *slog.Logger
	faults   string

	published   Sample
	publishedAt time.Time
}

// NewSampler makes the loop around reader, which it owns from now on.
func NewSampler(reader *Reader, interest Interest, log *slog.Logger) *Sampler {
	return &Sampler{reader: reader, interest: interest, log: log}
}

// Run samples until ctx ends and gives publish what is worth sending: the first
// sample, every significant change, the newest state when somebody begins to
// look, and while somebody looks at least one every 10 s. publish must not
// block. Run returns nil when ctx ends.
func (s *Sampler) Run(ctx context.Context, publish func(Sample)) error {
	// A second after start the first rates are honest.
	timer := time.NewTimer(firstAfter)
	defer timer.Stop()
	watched := false
	for {
		// The channel first, then the question: a change between the two is
		// then seen as a signal that says nothing new, never lost.
		changed := s.interest.InterestChanged()
		was := watched
		watched = s.interest.Interested()
		if watched && !was {
			s.step(true, true, publish)
		}
		if watched != was {
			timer.Reset(every(watched))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		case <-timer.C:
			s.step(watched, false, publish)
			timer.Reset(every(watched))
		}
	}
}

func every(watched bool) time.Duration {
	if watched {
		return watchedEvery
	}
	return idleEvery
}

func (s *Sampler) step(watched, always bool, publish func(Sample)) {
	now := time.Now()
	sample, err := s.reader.Sample(now)
	s.complain(err)
	due := s.publishedAt.IsZero() || watched && now.Sub(s.publishedAt) >= refreshEvery
	if always || due || Significant(s.published, sample) {
		s.published, s.publishedAt = sample, now
		publish(sample)
	}
}

// complain logs failing sources when they change, not at every sample.
func (s *Sampler) complain(err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	if text == s.faults {
		return
	}
	s.faults = text
	if err != nil {
		s.log.Warn("some telemetry sources cannot be read", "err", err)
	} else {
		s.log.Info("all telemetry sources can be read again")
	}
}
