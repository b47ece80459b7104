package raftgroup

import (
	"errors"
	"sync"

	"github.com/hashicorp/raft"
)

// errCatchUp ends pipelining with a follower that is far behind.
var errCatchUp = errors.New("follower is behind; it is sent all it lacks first")

// AppendEntriesPipeline implements raft.Transport.
func (t *transport) AppendEntriesPipeline(id raft.ServerID, to raft.ServerAddress) (raft.AppendPipeline, error) {
	inner, err := t.NetworkTransport.AppendEntriesPipeline(id, to)
	if err != nil {
		return nil, err
	}
	p := &pipeline{AppendPipeline: inner, answers: make(chan raft.AppendFuture), closed: make(chan struct{})}
	go p.forward() // ends with Close, which raft calls
	return p, nil
}

// pipeline is raft's own with two faults less.
//
// On a pipeline raft sends one message for each new entry, or each CommitTimeout:
// who is a thousand entries behind on an idle log would have them after minutes.
// Without a pipeline raft sends all there is, so this one gives up when there is
// more than one message holds.
//
// When a follower refuses an entry, raft reads no more answers; if it is sending
// at that moment, the answer that nobody reads keeps raft's own pipeline from
// taking what is sent, and both wait for ever: the follower gets nothing more in
// this term and raft cannot be shut down. Here answers are always taken.
type pipeline struct {
	raft.AppendPipeline
	answers chan raft.AppendFuture
	once    sync.Once
	closed  chan struct{}
}

// AppendEntries implements raft.AppendPipeline.
func (p *pipeline) AppendEntries(args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) (raft.AppendFuture, error) {
	if len(args.Entries) >= maxEntriesPerAppend {
		return nil, errCatchUp
	}
	return p.AppendPipeline.AppendEntries(args, resp)
}

// Consumer implements raft.AppendPipeline.
func (p *pipeline) Consumer() <-chan raft.AppendFuture { return p.answers }

// Close implements raft.AppendPipeline.
func (p *pipeline) Close() error {
	p.once.Do(func() { close(p.closed) })
	return p.AppendPipeline.Close()
}

// forward takes answers whether or not somebody reads them. Raft looks after each
// message whether it still should send, so few pile up.
func (p *pipeline) forward() {
	var waiting []raft.AppendFuture
	for {
		var next raft.AppendFuture
		var to chan raft.AppendFuture
		if len(waiting) > 0 {
			next, to = waiting[0], p.answers
		}
		select {
		case f := <-p.AppendPipeline.Consumer():
			waiting = append(waiting, f)
		case to <- next:
			waiting = waiting[1:]
		case <-p.closed:
			return
		}
	}
}
