package raftlog

import (
	"errors"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
)

// fresh is an empty log with hooks.
func fresh(t *testing.T, hooks Hooks, between func(Files) Files) *Log {
	t.Helper()
	l, err := Open(Config{Dir: filepath.Join(t.TempDir(), "raft"), ID: self, Hooks: hooks, Between: between})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

func TestBlankLogCastsNoVote(t *testing.T) {
	t.Parallel()
	l := fresh(t, Hooks{}, nil)
	if err := l.SetUint64([]byte(keyLastVoteTerm), 7); !errors.Is(err, errBlank) {
		t.Fatalf("blank log voted: %v", err)
	}
	if err := l.StoreLog(&raft.Log{Index: 1, Term: 1}); err != nil {
		t.Fatal(err)
	}
	if err := l.SetUint64([]byte(keyLastVoteTerm), 7); err != nil {
		t.Fatal(err)
	}
}

func TestOwnerIsAskedBeforeAVote(t *testing.T) {
	t.Parallel()
	var no error
	l := fresh(t, Hooks{MayVote: func() error { return no }}, nil)
	no = errors.New("not yet")
	if err := errors.Join(l.StoreLog(&raft.Log{Index: 1, Term: 1}), l.SetUint64([]byte(keyCurrentTerm), 7)); err != nil {
		t.Fatal(err)
	}
	if err := l.SetUint64([]byte(keyLastVoteTerm), 7); !errors.Is(err, no) {
		t.Fatalf("voted: %v", err)
	}
	if v, err := l.GetUint64([]byte(keyLastVoteTerm)); err == nil {
		t.Fatalf("the vote of term %d is kept", v)
	}
	no = nil
	if err := l.SetUint64([]byte(keyLastVoteTerm), 7); err != nil {
		t.Fatal(err)
	}
}

func TestOwnerStopsAllWriting(t *testing.T) {
	t.Parallel()
	var over error
	l := fresh(t, Hooks{MayWrite: func() error { return over }}, nil)
	if err := l.StoreLog(&raft.Log{Index: 1, Term: 1}); err != nil {
		t.Fatal(err)
	}
	over = errors.New("another failed")
	for what, err := range map[string]error{
		"entry": l.StoreLog(&raft.Log{Index: 2, Term: 1}), "cut": l.DeleteRange(1, 1), "value": l.Set([]byte("k"), []byte("v")),
	} {
		if !errors.Is(err, over) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if last, err := l.LastIndex(); err != nil || last != 1 {
		t.Fatalf("the log ends at %d, %v", last, err)
	}
}

func TestHoldComesBeforeEntries(t *testing.T) {
	t.Parallel()
	var l *Log
	var ends []uint64
	l = fresh(t, Hooks{Hold: func() {
		last, err := l.LastIndex()
		if err != nil {
			t.Error(err)
		}
		ends = append(ends, last)
	}}, nil)
	if err := errors.Join(l.StoreLog(&raft.Log{Index: 1, Term: 1}), l.Set([]byte("k"), nil), l.StoreLog(&raft.Log{Index: 2, Term: 1})); err != nil {
		t.Fatal(err)
	}
	if len(ends) != 2 || ends[0] != 0 || ends[1] != 1 {
		t.Fatalf("held at %v", ends)
	}
}

// breaking are files whose next write of a value fails with err, or hangs.
type breaking struct {
	Files
	err  error
	hang chan struct{}
}

func (b *breaking) Set(k, v []byte) error {
	if b.hang != nil {
		<-b.hang
	}
	if b.err != nil {
		return b.err
	}
	return b.Files.Set(k, v)
}

// TestFirstFailedWriteIsTheLast: also of a term, of which raft is not told.
func TestFirstFailedWriteIsTheLast(t *testing.T) {
	t.Parallel()
	var broken breaking
	var told []error
	l := fresh(t, Hooks{Failed: func(err error) { told = append(told, err) }}, func(f Files) Files { broken.Files = f; return &broken })
	if err := errors.Join(l.StoreLog(&raft.Log{Index: 1, Term: 1}), l.SetUint64([]byte(keyCurrentTerm), 1)); err != nil {
		t.Fatal(err)
	}
	broken.err = errors.New("input/output error")
	if err := l.SetUint64([]byte(keyCurrentTerm), 2); err != nil {
		t.Fatalf("raft would panic: %v", err)
	}
	if len(told) != 1 || !errors.Is(told[0], ErrFailed) || !errors.Is(told[0], broken.err) {
		t.Fatalf("the owner was told %v", told)
	}
	was := broken.err
	broken.err = nil
	for _, err := range []error{l.StoreLog(&raft.Log{Index: 2, Term: 2}), l.Set([]byte("k"), nil), l.DeleteRange(1, 1)} {
		if !errors.Is(err, ErrFailed) || !errors.Is(err, was) {
			t.Errorf("it writes again: %v", err)
		}
	}
	if len(told) != 1 {
		t.Errorf("the owner was told %v", told)
	}
	if term, err := l.GetUint64([]byte(keyCurrentTerm)); err != nil || term != 1 {
		t.Errorf("term %d, %v", term, err)
	}
}

func TestHangingWriteIsSeen(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		broken := breaking{hang: make(chan struct{})}
		s := newSealedLog(&broken, Bolt, Hooks{})
		broken.err = errors.New("input/output error")
		done := make(chan error, 1)
		if took := s.StalledFor(); took != 0 {
			t.Fatalf("a write takes %s before there is one", took)
		}
		go func() { done <- s.Set([]byte("k"), nil) }()
		time.Sleep(3 * time.Second)
		synctest.Wait()
		if took := s.StalledFor(); took < 2*time.Second || took > 3*time.Second {
			t.Fatalf("the write takes %s", took)
		}
		close(broken.hang)
		if err := <-done; !errors.Is(err, ErrFailed) {
			t.Fatal(err)
		}
		if took := s.StalledFor(); took != 0 {
			t.Fatalf("a write takes %s after its end", took)
		}
	})
}

func TestSealedValues(t *testing.T) {
	t.Parallel()
	l := fresh(t, Hooks{}, nil)
	if err := l.Set([]byte(keyLastVoteCand), []byte("somebody")); err != nil {
		t.Fatal(err)
	}
	if v, err := l.Get([]byte(keyLastVoteCand)); err != nil || string(v) != "somebody" {
		t.Fatalf("%q %v", v, err)
	}
	if err := l.files.Set([]byte(keyLastVoteCand), []byte("somebodyxxxx")); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Get([]byte(keyLastVoteCand)); !errors.Is(err, errSeal) {
		t.Fatalf("changed value was read: %v", err)
	}
	if _, err := l.GetUint64([]byte("nothing")); err == nil || err.Error() != "not found" {
		t.Fatalf("raft wants \"not found\", got %v", err)
	}
}

func TestRecentLogsAreBounded(t *testing.T) {
	t.Parallel()
	r := recentLogs{logs: map[uint64]raft.Log{}}
	for i := uint64(1); i <= 3*maxRecentLogs; i++ {
		r.add([]*raft.Log{{Index: i, Data: make([]byte, 10)}})
	}
	if len(r.logs) != maxRecentLogs || r.low != 2*maxRecentLogs+1 {
		t.Fatalf("%d entries from %d", len(r.logs), r.low)
	}
	r.add([]*raft.Log{{Index: r.high + 1, Data: make([]byte, maxRecentBytes)}})
	if len(r.logs) != 1 || r.bytes != maxRecentBytes {
		t.Fatalf("%d entries of %d bytes", len(r.logs), r.bytes)
	}
	r.add([]*raft.Log{{Index: 5}}) // a follower whose suffix was replaced
	if _, low := r.logs[5], r.low; low != 5 || len(r.logs) != 1 || r.bytes != 0 {
		t.Fatalf("low %d, %d entries, %d bytes", low, len(r.logs), r.bytes)
	}
	r.drop(1, 5)
	var l raft.Log
	if r.get(5, &l) {
		t.Fatal("dropped entry was given")
	}
}
