package raftlog

import (
	"sync"

	"github.com/hashicorp/raft"
)

// Ledger knows how large the entries of a log are: four bytes of memory for each.
// So the log can be kept short by bytes, and what waits to be applied too. Sizes
// are those of raft.Log.Data.
type Ledger struct {
	mu sync.Mutex
	// first is the index of sizes[0].
	first uint64
	sizes []uint32
	// sinceBytes and sinceEntries were added since the last compaction.
	sinceBytes   int64
	sinceEntries uint64
}

// add notes entries that were stored. What they replace is forgotten.
func (l *Ledger) add(logs []*raft.Log) {
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
func (l *Ledger) cut(next uint64) {
	if next < l.first || next >= l.first+uint64(len(l.sizes)) {
		l.sizes = l.sizes[:0]
		l.first = next
		return
	}
	l.sizes = l.sizes[:next-l.first]
}

// drop forgets the entries low to high, which begin or end the log.
func (l *Ledger) drop(low, high uint64) {
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

// Newest is how many of the newest entries have at most that many bytes in all.
func (l *Ledger) Newest(bytes int64) (n uint64) {
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

// Between is how many bytes the entries after low, up to and with high, have; what
// the log does not hold counts 0.
func (l *Ledger) Between(low, high uint64) (bytes int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := max(low+1, l.first); i <= high && i < l.first+uint64(len(l.sizes)); i++ {
		bytes += int64(l.sizes[i-l.first])
	}
	return bytes
}

// Since is what was added since the last call of Compacted, or since the newest
// snapshot when the log was opened.
func (l *Ledger) Since() (bytes int64, entries uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.sinceBytes, l.sinceEntries
}

// compactedUpTo counts what comes after entry covered, which a snapshot has.
func (l *Ledger) compactedUpTo(covered uint64) {
	l.mu.Lock()
	end := l.first + uint64(len(l.sizes))
	l.mu.Unlock()
	bytes := l.Between(covered, end)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sinceBytes, l.sinceEntries = bytes, end-min(end, max(covered+1, l.first))
}

// Compacted makes Since count anew.
func (l *Ledger) Compacted() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sinceBytes, l.sinceEntries = 0, 0
}
