package raftgroup

import (
	"sync"

	"github.com/hashicorp/raft"
)

// ledger knows how large the entries of the log are: four bytes of memory for
// each. So the log can be kept short by bytes, and what waits to be applied too.
type ledger struct {
	mu sync.Mutex
	// first is the index of sizes[0].
	first uint64
	sizes []uint32
	// since is the bytes and entries that were added since the last compaction.
	sinceBytes   int64
	sinceEntries uint64
}

// add notes entries that were stored. What they replace is forgotten.
func (l *ledger) add(logs []*raft.Log) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range logs {
		if e.Index != l.first+uint64(len(l.sizes)) {
			l.cut(e.Index)
		}
		l.sizes = append(l.sizes, uint32(len(e.Data)))
		l.sinceBytes += int64(len(e.Data))
		l.sinceEntries++
	}
}

// cut makes next the index of the entry to come.
func (l *ledger) cut(next uint64) {
	if next < l.first || next >= l.first+uint64(len(l.sizes)) {
		l.sizes = l.sizes[:0]
		l.first = next
		return
	}
	l.sizes = l.sizes[:next-l.first]
}

// drop forgets the entries low to high, which begin or end the log.
func (l *ledger) drop(low, high uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	end := l.first + uint64(len(l.sizes))
	switch {
	case len(l.sizes) == 0 || low >= end || high < l.first:
	case low <= l.first && high >= end-1:
		l.cut(high + 1)
	case low <= l.first:
		l.sizes = append(l.sizes[:0], l.sizes[high+1-l.first:]...)
		l.first = high + 1
	default:
		l.cut(low)
	}
}

// newest is how many of the newest entries have at most that many bytes.
func (l *ledger) newest(bytes int64) (n uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := len(l.sizes) - 1; i >= 0; i-- {
		if bytes -= int64(l.sizes[i]); bytes < 0 {
			break
		}
		n++
	}
	return n
}

// between is how many bytes the entries after low, up to high, have.
func (l *ledger) between(low, high uint64) (bytes int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := max(low+1, l.first); i <= high && i < l.first+uint64(len(l.sizes)); i++ {
		bytes += int64(l.sizes[i-l.first])
	}
	return bytes
}

// since is what was added since the last compaction.
func (l *ledger) since() (bytes int64, entries uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.sinceBytes, l.sinceEntries
}

// compactedUpTo counts what comes after entry covered, which a snapshot has.
func (l *ledger) compactedUpTo(covered uint64) {
	l.mu.Lock()
	end := l.first + uint64(len(l.sizes))
	l.mu.Unlock()
	bytes := l.between(covered, end)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sinceBytes, l.sinceEntries = bytes, end-min(end, max(covered+1, l.first))
}

// compacted begins to count anew.
func (l *ledger) compacted() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sinceBytes, l.sinceEntries = 0, 0
}
