package audit_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"skein/consensus/audit"
	"skein/consensus/backup"
	"skein/consensus/backup/backuptest"
	"skein/consensus/event"
	"skein/consensus/fleet"
	"skein/consensus/fleet/fleettest"
	"skein/consensus/history"
	"skein/consensus/replica"
	"skein/mesh/ident"
)

// tail makes segments of 1 KB and a checkpoint for each, and drops nothing of
// the logs of these tests but one.
var tail = replica.Options{TailBytes: 9_000}

// stopped is the directory of a node that was stopped in good order.
func stopped(t testing.TB) (*backuptest.Log, string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "log")
	l := backuptest.New(t, dir, tail)
	l.Labels(2, 1)
	l.Seal()
	l.Seal()
	l.Labels(1, 1)
	l.Close()
	return l, dir
}

func examine(t testing.TB, dir string) *audit.Report {
	t.Helper()
	r, err := audit.Directory(t.Context(), dir, false)
	if err != nil {
		t.Fatal(err)
	}
	if r.OK() != (len(r.Findings) == 0) {
		t.Fatalf("%d wrong, %d findings", r.Wrong, len(r.Findings))
	}
	return r
}

func files(t testing.TB, dir string) (paths []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			paths = append(paths, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return paths
}

func TestAGoodLog(t *testing.T) {
	l, dir := stopped(t)
	r := examine(t, dir)
	if !r.OK() {
		t.Fatalf("wrong: %v", r.Findings)
	}
	l.Open(tail)
	at := l.Replica.Cursor()
	if r.History != at.History || r.Last != at.Seq || r.Hash != at.Hash || r.First != 1 || r.StateHash != backuptest.StateHash(l.Replica) {
		t.Errorf("%+v\nthe log is at %+v", r, at)
	}
	if r.Counts.Events != at.Seq || r.Counts.Seals != 2 || r.SealedSeq == 0 || r.SealedBy != backuptest.Founder() || r.FleetName != "test fleet" ||
		r.Counts.Checkpoints < 2 || r.Counts.Files < 5 {
		t.Errorf("%+v", r)
	}
	if r := examine(t, t.TempDir()); !r.OK() || r.Last != 0 {
		t.Errorf("an empty directory: %+v", r)
	}
	if _, err := audit.Directory(t.Context(), filepath.Join(dir, "no"), false); err == nil {
		t.Error("no directory, and no error")
	}
}

// Every changed byte and every cut, of every file, is found, and named. Cuts are
// tried at every fourth byte, at every one with SKEIN_SOAK.
func TestDamageAtEveryByte(t *testing.T) {
	cutEvery := 4
	if os.Getenv("SKEIN_SOAK") != "" {
		cutEvery = 1
	}
	_, dir := stopped(t)
	segments := 0
	for _, path := range files(t, dir) {
		good, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(path, ".seg") {
			segments++
		}
		for i := range good {
			if strings.HasSuffix(path, ".idx") && i%64 != 0 {
				continue // derived, mostly zeros, and of one checksum a page
			}
			bad := bytes.Clone(good)
			bad[i] ^= 1 << (i % 8)
			damageIs(t, dir, path, bad, i, "changed")
			if i%cutEvery == 0 {
				damageIs(t, dir, path, good[:i], i, "cut from here on")
			}
		}
		if err := os.WriteFile(path, good, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if segments < 3 {
		t.Errorf("only %d segments", segments)
	}
	if r := examine(t, dir); !r.OK() {
		t.Fatalf("the test did not put back what it changed: %v", r.Findings)
	}
}

func damageIs(t *testing.T, dir, path string, content []byte, i int, what string) {
	t.Helper()
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	r := examine(t, dir)
	switch {
	case r.OK():
		t.Fatalf("%s byte %d %s: not found", filepath.Base(path), i, what)
	case r.Findings[0].File != path:
		t.Fatalf("%s byte %d %s: found is %v", filepath.Base(path), i, what, r.Findings)
	case r.Findings[0].Offset > int64(i):
		t.Fatalf("%s byte %d %s: found is only byte %d", filepath.Base(path), i, what, r.Findings[0].Offset)
	}
}

// A file that is missing is found, except for the oldest ones, which retention
// may have dropped.
func TestMissingFiles(t *testing.T) {
	_, dir := stopped(t)
	first := true
	for _, path := range files(t, dir) {
		if !strings.HasSuffix(path, ".seg") {
			continue
		}
		good, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		r := examine(t, dir)
		if first != r.OK() || first && r.First == 1 {
			t.Errorf("%s is missing: %+v", filepath.Base(path), r)
		}
		first = false
		if err := os.WriteFile(path, good, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// rewrite replaces an event in the only segment of dir by what change makes of
// it, and makes every checksum and every hash after it right: a forger who has
// the disk for as long as he wants. Checkpoints, which tell, he removes.
func rewrite(t *testing.T, dir string, change func(e *event.Event)) {
	t.Helper()
	for _, path := range files(t, dir) {
		if strings.HasPrefix(filepath.Base(path), "checkpoint-") {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
		}
	}
	path := filepath.Join(dir, "history", strings.Repeat("0", 20)+".seg")
	old, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	const header = 52
	out := bytes.Clone(old[:header])
	at := history.Position{}
	for b := old[header:]; len(b) > 0; {
		n := binary.BigEndian.Uint32(b)
		r, err := history.ParseRecord(b[8 : 8+n])
		if err != nil {
			t.Fatal(err)
		}
		b = b[8+n:]
		for i := range r.Events {
			change(&r.Events[i])
		}
		again, err := history.NewRecord(r.Index, r.Term, r.Events, at)
		if err != nil {
			t.Fatal(err)
		}
		at = again.End()
		out = binary.BigEndian.AppendUint32(out, uint32(len(again.Bytes())))
		out = binary.BigEndian.AppendUint32(out, crc32.Checksum(again.Bytes(), crc32.MakeTable(crc32.Castagnoli)))
		out = append(out, again.Bytes()...)
	}
	if err := os.WriteFile(path, out, 0o600); err != nil {
		t.Fatal(err)
	}
}

func sealed(t *testing.T) (*backuptest.Log, string) {
	dir := filepath.Join(t.TempDir(), "log")
	l := backuptest.New(t, dir, replica.Options{})
	l.Admit(3)
	l.Labels(4, 1)
	l.Seal()
	l.Labels(3, 1)
	l.Close()
	return l, dir
}

// Who writes the past anew, with a chain that holds, meets the leader's seal.
func TestAForgedPast(t *testing.T) {
	l, dir := sealed(t)
	const forged = 13 // a label before the seal
	rewrite(t, dir, func(e *event.Event) {
		if e.Seq == forged {
			e.Data = []byte(`{"set":{"n":"forged"}}`)
		}
	})
	r := examine(t, dir)
	if r.OK() || !strings.Contains(r.Findings[0].Problem, "sealed another past") || r.SealedSeq != 0 {
		t.Fatalf("%+v", r)
	}
	// The forger makes a seal of his own, with the key of a node that is a member.
	hash := ""
	rewrite(t, dir, func(e *event.Event) {
		if e.Type != event.TypeLogSealed {
			return
		}
		payload, err := e.Decode()
		if err != nil {
			t.Fatal(err)
		}
		seal := event.Seal(fleettest.Key(3), "h1", payload.(*event.LogSealed).Seq, hashAt(t, dir, payload.(*event.LogSealed).Seq))
		hash = seal.Hash
		e.Data = seal.Draft().Data
	})
	if r := examine(t, dir); r.OK() || !strings.Contains(r.Findings[0].Problem, "signature") || hash == "" {
		t.Fatalf("a seal by another key: %+v", r)
	}
	rewrite(t, dir, func(e *event.Event) {
		if e.Type == event.TypeLogSealed {
			e.Actor.ID = string(fleettest.Node(3))
		}
	})
	if r := examine(t, dir); r.OK() || !strings.Contains(r.Findings[0].Problem, "no voter") {
		t.Fatalf("a seal by a node that does not vote: %+v", r)
	}
	_ = l
}

// hashAt is the chain's hash after event seq of the only segment in dir.
func hashAt(t *testing.T, dir string, seq uint64) (hash string) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, "history", strings.Repeat("0", 20)+".seg"))
	if err != nil {
		t.Fatal(err)
	}
	for b = b[52:]; len(b) > 0; {
		n := binary.BigEndian.Uint32(b)
		r, err := history.ParseRecord(b[8 : 8+n])
		if err != nil {
			t.Fatal(err)
		}
		if b = b[8+n:]; r.Last() == seq {
			return r.Hash.String()
		}
	}
	t.Fatalf("no record ends with event %d", seq)
	return ""
}

// What comes after the newest seal is proved by the chain and the checkpoints.
func TestForgedAfterTheSeal(t *testing.T) {
	_, dir := sealed(t)
	var checkpoint string
	for _, path := range files(t, dir) {
		if strings.HasPrefix(filepath.Base(path), "checkpoint-") {
			checkpoint = path
		}
	}
	kept, err := os.ReadFile(checkpoint)
	if err != nil {
		t.Fatal(err)
	}
	before := examine(t, dir)
	rewrite(t, dir, func(e *event.Event) {
		if e.Seq == before.Last {
			e.Data = []byte(`{"set":{"n":"forged"}}`)
		}
	})
	r := examine(t, dir)
	if !r.OK() || r.SealedSeq == 0 || r.SealedSeq >= before.Last || r.Hash == before.Hash {
		t.Errorf("only the hash can tell, and the seals must not claim more: %+v", r)
	}
	if err := os.WriteFile(checkpoint, kept, 0o600); err != nil {
		t.Fatal(err)
	}
	if r := examine(t, dir); r.OK() || r.Findings[0].File != checkpoint {
		t.Errorf("the checkpoint tells: %+v", r)
	}
}

// Who makes the checksum right, and not the chain, is found at that record.
func TestTheChain(t *testing.T) {
	_, dir := sealed(t)
	path := filepath.Join(dir, "history", strings.Repeat("0", 20)+".seg")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	const header = 52
	last := header // the frame of the last record
	for next := header; next < len(text); next += 8 + int(binary.BigEndian.Uint32(text[next:])) {
		last = next
	}
	i := last + bytes.LastIndex(text[last:], []byte(`"n":"`)) + len(`"n":"`)
	text[i] ^= 1
	binary.BigEndian.PutUint32(text[last+4:], crc32.Checksum(text[last+8:], crc32.MakeTable(crc32.Castagnoli)))
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	r := examine(t, dir)
	if r.OK() || r.Findings[0].File != path || r.Findings[0].Offset != int64(last) || !strings.Contains(r.Findings[0].Problem, "the chain is broken") {
		t.Errorf("%+v", r.Findings)
	}
}

// A checkpoint that is whole, of the right place, and says something else than the
// log: who has the disk could have put it there.
func TestAForgedCheckpoint(t *testing.T) {
	l, dir := sealed(t)
	l.Open(replica.Options{})
	at := l.Replica.Cursor()
	state, _, err := l.Replica.StateAt(t.Context(), at.Seq)
	if err != nil {
		t.Fatal(err)
	}
	index, term := l.Replica.Applied()
	text := bytes.Replace(state.Marshal(), []byte("gander"), []byte("ganter"), -1)
	forged, err := fleet.Unmarshal(text)
	if err != nil {
		t.Fatal(err)
	}
	hash, err := hex.DecodeString(at.Hash)
	if err != nil {
		t.Fatal(err)
	}
	content, err := replica.EncodeSnapshot(forged, history.Position{Seq: at.Seq, Hash: history.Hash(hash)}, index, term)
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	path := filepath.Join(dir, fmt.Sprintf("checkpoint-%020d", at.Seq))
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	if r := examine(t, dir); r.Wrong != 1 || r.Findings[0].File != path || !strings.Contains(r.Findings[0].Problem, "add up") {
		t.Errorf("%+v", r)
	}
}

// A power cut leaves a torn end; it is said, and said what becomes of it.
func TestATornEnd(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "log")
	l := backuptest.New(t, dir, replica.Options{})
	l.Labels(5, 1)
	last := l.Replica.Cursor().Seq
	var segment string
	for _, path := range files(t, dir) {
		if strings.HasSuffix(path, ".seg") {
			segment = path
		}
	}
	whole, err := os.ReadFile(segment)
	if err != nil {
		t.Fatal(err)
	}
	if r := examine(t, dir); !r.OK() || r.Last != last {
		t.Fatalf("a node that runs: %+v", r)
	}
	copied := filepath.Join(t.TempDir(), "log")
	if err := os.MkdirAll(filepath.Join(copied, "history"), 0o700); err != nil {
		t.Fatal(err)
	}
	torn := filepath.Join(copied, "history", filepath.Base(segment))
	for what, content := range map[string][]byte{"cut": whole[:len(whole)-3], "zeros": append(bytes.Clone(whole), make([]byte, 4096)...)} {
		if err := os.WriteFile(torn, content, 0o600); err != nil {
			t.Fatal(err)
		}
		r := examine(t, copied)
		if r.Wrong != 1 || !strings.Contains(r.Findings[0].Problem, "power cut") || r.Findings[0].Event <= r.Last {
			t.Errorf("%s: %+v", what, r)
		}
	}
}

// The node writes, rolls segments and drops old ones all the while; the audit
// never calls that damage.
func TestWhileTheNodeRuns(t *testing.T) {
	l := backuptest.New(t, filepath.Join(t.TempDir(), "log"), tail)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for ctx.Err() == nil {
			l.Labels(3, 3)
		}
	}()
	audits := 0
	for last := uint64(0); audits < 15 || last < 1000; audits++ {
		r, err := audit.Directory(t.Context(), l.Dir, true)
		if err != nil {
			continue // it drops files faster than they can be read, and says so
		}
		if !r.OK() {
			t.Errorf("audit %d: %v", audits, r.Findings)
			break
		}
		last = r.Last
	}
	stop()
	<-ended
}

func TestBackups(t *testing.T) {
	l, _ := stopped(t)
	l.Open(tail)
	path := filepath.Join(t.TempDir(), "geese.backup")
	m := backup.New(backup.Config{Source: l.Replica, Key: fleettest.Key(0), Chain: func() ident.Chain { return backuptest.Chain(0) }})
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.Write(t.Context(), f); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	r, err := audit.Backup(t.Context(), path)
	if err != nil || !r.OK() || r.Counts.Seals != 2 || r.Hash != l.Replica.Cursor().Hash {
		t.Fatalf("%+v %v", r, err)
	}
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(good); i += 7 {
		for _, bad := range [][]byte{good[:i], append(append(bytes.Clone(good[:i]), good[i]^4), good[i+1:]...)} {
			if err := os.WriteFile(path, bad, 0o600); err != nil {
				t.Fatal(err)
			}
			r, err := audit.Backup(t.Context(), path)
			if err == nil && (r.OK() || r.Findings[0].File != path) {
				t.Fatalf("byte %d: not found: %+v", i, r)
			}
		}
	}
	if _, err := audit.Backup(t.Context(), path+".no"); err == nil {
		t.Error("no file, and no error")
	}
}
