package raftgroup

import (
	"io"

	"github.com/hashicorp/raft"
)

// sift answers for raft when this node is sent a snapshot of what it holds.
//
// A leader sends one to whoever it believes to be far behind, which may be a voter
// that has just restarted. Raft installs it: the configuration of then becomes
// the newest, and entries that are in the log already are skipped, so the newer
// ones in it never count again. Such a voter may elect with those who vote no more.
// It says of itself that it is applied up to then, too. Here a snapshot that ends at
// an entry of the log is what it is, known, and the leader goes on behind it. sift
// ends with Close.
func (t *transport) sift(r *raft.Raft, logs raft.LogStore) {
	inner := t.NetworkTransport.Consumer()
	for {
		select {
		case rpc := <-inner:
			if req, is := rpc.Command.(*raft.InstallSnapshotRequest); is && known(req, r, logs) {
				go func() { // ends with the stream, of which there are maxIncoming
					_, err := io.Copy(io.Discard, rpc.Reader)
					rpc.Respond(&raft.InstallSnapshotResponse{Term: req.Term, Success: true}, err)
				}()
				continue
			}
			select {
			case t.sifted <- rpc:
			case <-t.closed:
				return
			}
		case <-t.closed:
			return
		}
	}
}

// known reports whether a snapshot of the present term ends at an entry that this
// node holds.
func known(req *raft.InstallSnapshotRequest, r *raft.Raft, logs raft.LogStore) bool {
	if r.State() != raft.Follower || r.CurrentTerm() != req.Term {
		return false
	}
	var entry raft.Log
	return req.LastLogIndex <= r.AppliedIndex() || logs.GetLog(req.LastLogIndex, &entry) == nil && entry.Term == req.LastLogTerm
}

// Consumer implements raft.Transport.
func (t *transport) Consumer() <-chan raft.RPC { return t.sifted }

// Close implements raft.WithClose.
func (t *transport) Close() error {
	t.once.Do(func() { close(t.closed) })
	return t.NetworkTransport.Close()
}
