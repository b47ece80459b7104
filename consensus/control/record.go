package control

import (
	"time"

	"skein/consensus/event"
	"skein/consensus/fleet"
)

const (
	// sealEvents and sealAfter say when the log is sealed: after so many events, or
	// so long after the first one that no seal covers.
	sealEvents = 1000
	sealAfter  = time.Hour
)

// ceiling is the level that all voters know, if that is more than what the fleet
// may use so far. One voter whose level is not known is enough to wait: it may be
// away for an upgrade, or back from one that failed.
func ceiling(s *fleet.State, w world) (level uint64, due bool) {
	level = w.ownLevel
	for _, id := range w.raftVoters {
		if id == w.self {
			continue
		}
		theirs, known := w.level(id)
		if !known {
			return 0, false
		}
		level = min(level, max(theirs, 1))
	}
	return level, level > s.Ceiling()
}

// sealDue: enough has happened since the last seal. Its own event does not
// count, or an idle fleet would seal its seals for ever.
func (p *planner) sealDue(s *fleet.State, w world) bool {
	if need := event.LevelOf(event.TypeLogSealed, 1); need == 0 || need > s.Ceiling() {
		return false
	}
	news := s.Seq()
	last, sealed := s.Seal()
	if sealed {
		news = s.Seq() - last.Seq - 1
	}
	if news == 0 || last.Seq != p.sealed {
		p.unsealed, p.sealed = time.Time{}, last.Seq
	}
	if news == 0 {
		return false
	}
	if p.unsealed.IsZero() {
		p.unsealed = w.now
	}
	return news >= sealEvents || w.now.Sub(p.unsealed) >= sealAfter
}
