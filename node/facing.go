package node

import (
	"context"
	"errors"
	"io"
	"net/http"
	"time"

	"skein/consensus/backup"
	"skein/consensus/event"
	"skein/consensus/reads"
	"skein/consensus/replica"
	"skein/mesh/ident"
	"skein/mesh/link"
	"skein/node/gateway/view"
)

const readProtocol link.Protocol = reads.Protocol

// answers are the parts that only the face asks.
type answers struct {
	reads   *reads.Service
	backups *backup.Maker
}

func newAnswers(b *body) answers {
	return answers{
		reads: reads.New(reads.Config{
			Self: b.self.key.ID(), Seat: verifier{b}, Replica: b.store, Age: b.age, Open: b.opener(readProtocol), Log: b.self.log,
		}),
		backups: backup.New(backup.Config{Source: b.store, Key: b.self.key, Chain: b.self.chain, Build: b.self.version}),
	}
}

// Query implements rest.Events.
func (w *window) Query(ctx context.Context, q view.EventQuery) (page view.EventPage, err error) {
	for {
		found, err := w.body.store.Query(ctx, replica.Query{
			Filter: filterOf(q.EventFilter), After: q.After, Before: q.Before, Newest: q.Newest, Limit: q.Limit,
		})
		if !errors.Is(err, replica.ErrCompacted) {
			return view.EventPage{Events: found.Events, Compacted: page.Compacted || found.Compacted, More: found.More}, err
		}
		// What is held may shrink between the question and the answer; each round
		// starts later.
		page.Compacted, q.After = true, w.body.store.First()-1
	}
}

func filterOf(f view.EventFilter) replica.Filter {
	return replica.Filter{Stream: f.Stream, Type: f.Type, Actor: f.Actor, From: f.From, Until: f.Until}
}

// TransferLeader implements rest.Node.
func (w *window) TransferLeader(ctx context.Context, to ident.NodeID) error {
	g := w.body.seat.current()
	if g == nil {
		return errEmptySeat
	}
	return g.Transfer(ctx, to)
}

// Backup implements rest.Node.
func (w *window) Backup(ctx context.Context, out io.Writer) error {
	_, err := w.body.answers.backups.Write(ctx, out)
	if errors.Is(err, backup.ErrBusy) {
		return &view.Problem{Status: http.StatusServiceUnavailable, Code: "busy", Detail: err.Error(), RetryAfterMillis: busyMillis}
	}
	return err
}

// busyMillis is when to ask again for a backup.
const busyMillis = 10_000

// verifier is the seat as reads sees it: who leads is also known from marks.
type verifier struct{ b *body }

// Leader implements reads.Seat.
func (v verifier) Leader() (ident.NodeID, bool) { return v.b.leader() }

// VerifyLeader implements reads.Seat.
func (v verifier) VerifyLeader(ctx context.Context) error {
	if g := v.b.seat.current(); g != nil {
		return g.VerifyLeader(ctx)
	}
	return event.Refuse(event.CodeNoLeader, "", "ask the leader", "this node is no voter")
}

// Leased implements reads.Seat.
func (v verifier) Leased() bool {
	g := v.b.seat.current()
	return g != nil && g.Leased()
}

// age is how old this node's copy is at most, and by whose word.
func (b *body) age() (age time.Duration, leader ident.NodeID, known bool) {
	m, age, ok := b.follower.Mark()
	return age, m.Leader, ok
}

// reading is reads.Service as the face asks it.
type reading struct{ service *reads.Service }

// Await implements rest.Reads.
func (r reading) Await(ctx context.Context, read view.Read) (view.Fresh, error) {
	a, err := r.service.Await(ctx, reads.Level(read))
	return view.Fresh{Cursor: a.Cursor, Age: a.Age}, err
}
