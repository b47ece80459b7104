package replica

import (
	"fmt"
	"time"

	"skein/consensus/event"
)

// RecoverJump is added to the Raft index at Recover. A node may have counted more
// entries than the one that recovers, some without events. With the jump every
// index of the new Raft log is above every index of the old one, so that nobody
// takes a new entry for one that it has.
const RecoverJump = 1 << 32

// Recovered says where a replica is after Recover.
type Recovered struct {
	Cursor event.Cursor
	// Index and Term are what the new Raft log has to continue after.
	Index, Term uint64
}

// Recover decides a batch on this node alone, for a fleet that has lost its
// quorum: no Raft log may be running. Its actor is of event.KindRecovery. The
// error is a *event.Fault when the state refuses it; then nothing has changed. It
// is durable when it returns.
func (r *Replica) Recover(b event.Batch, now time.Time) (Recovered, error) {
	if b.Actor.Kind != event.KindRecovery {
		return Recovered{}, event.Refuse(event.CodeNotAllowed, "", "propose it to the fleet",
			"a batch of the actor kind %q is no recovery", b.Actor.Kind).In("actor.kind")
	}
	if err := r.decideAlone(b, now); err != nil {
		return Recovered{}, err
	}
	if err := r.Checkpoint(); err != nil {
		return Recovered{}, err
	}
	index, term := r.Applied()
	return Recovered{r.Cursor(), index, term}, nil
}

func (r *Replica) decideAlone(b event.Batch, now time.Time) error {
	r.apply.Lock()
	defer r.apply.Unlock()
	at, err := r.ready()
	if err != nil {
		return err
	}
	outcomes, events, err := r.decide(Entry{TimeMillis: now.UnixMilli(), Batches: []event.Batch{b}})
	if err == nil {
		err = outcomes[0].Err
	}
	if err != nil {
		r.tx.Discard()
		return err
	}
	at.index, at.term = at.index+RecoverJump, at.term+1
	if err := r.record(at, events); err != nil {
		return r.fail(fmt.Errorf("recover: %w", err))
	}
	return nil
}
