package raftlog

import (
	"sync"

	"github.com/hashicorp/raft"
)

const (
	maxRecentBytes = 4 << 20
	maxRecentLogs  = 1024
)

// recentLogs holds the newest entries without a hole, so that replication and
// Apply need not read back what was just written.
type recentLogs struct {
	mu        sync.RWMutex
	logs      map[uint64]raft.Log
	low, high uint64
	bytes     int
}

func (r *recentLogs) get(index uint64, into *raft.Log) bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	l, ok := r.logs[index]
	if ok {
		*into = l
	}
	return ok
}

func (r *recentLogs) add(logs []*raft.Log) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, l := range logs {
		if len(r.logs) == 0 || l.Index != r.high+1 {
			clear(r.logs)
			r.low, r.bytes = l.Index, 0
		}
		r.logs[l.Index] = *l
		r.high = l.Index
		r.bytes += len(l.Data)
	}
	for len(r.logs) > 1 && (r.bytes > maxRecentBytes || len(r.logs) > maxRecentLogs) {
		r.bytes -= len(r.logs[r.low].Data)
		delete(r.logs, r.low)
		r.low++
	}
}

// drop forgets everything if [low, high] touches what is held.
func (r *recentLogs) drop(low, high uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.logs) > 0 && low <= r.high && high >= r.low {
		clear(r.logs)
		r.bytes = 0
	}
}
