package keyring

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func openRing(t *testing.T) *Ring {
	t.Helper()
	r, err := Open(filepath.Join(t.TempDir(), "gossip.json"))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func mustSet(t *testing.T, r *Ring, k Keys) {
	t.Helper()
	if err := r.Set(k); err != nil {
		t.Fatal(err)
	}
}

func TestKeysSurviveReopenWithPrivateMode(t *testing.T) {
	r := openRing(t)
	if got := r.Current(); got.Epoch != 0 {
		t.Fatalf("a new ring has %v", got)
	}
	mustSet(t, r, r.NewEpoch(1))
	mustSet(t, r, r.NewEpoch(2))
	again, err := Open(r.path)
	if err != nil {
		t.Fatal(err)
	}
	want, got := r.Current(), again.Current()
	if got.Epoch != 2 || !bytes.Equal(got.Primary, want.Primary) ||
		len(got.Previous) != 1 || !bytes.Equal(got.Previous[0], want.Previous[0]) {
		t.Fatal("the ring changed by closing and opening it")
	}
	info, err := os.Stat(r.path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("mode %v, %v; want 0600", info.Mode(), err)
	}
}

func TestOnlyAHigherEpochIsTaken(t *testing.T) {
	r := openRing(t)
	first := r.NewEpoch(1)
	mustSet(t, r, first)
	mustSet(t, r, r.NewEpoch(5))
	fifth := r.Current()
	if err := r.Set(first); !errors.Is(err, ErrStale) {
		t.Fatalf("older epoch: %v, want ErrStale", err)
	}
	if err := r.Set(Keys{}.next(5)); !errors.Is(err, ErrStale) {
		t.Fatalf("other keys of the same epoch: %v, want ErrStale", err)
	}
	changed := r.Changed()
	mustSet(t, r, fifth)
	select {
	case <-changed:
		t.Fatal("the same keys again were told as a change")
	default:
	}
	if !bytes.Equal(r.Current().Primary, fifth.Primary) {
		t.Fatal("a refused Set changed the ring")
	}
}

func TestNewEpochAcceptsABoundedNumberOfOlderKeys(t *testing.T) {
	r := openRing(t)
	var made []Keys
	for epoch := uint64(1); epoch <= 5; epoch++ {
		k := r.NewEpoch(epoch)
		made = append(made, k)
		mustSet(t, r, k)
	}
	got := r.Current()
	if len(got.Previous) != MaxPrevious || !bytes.Equal(got.Previous[0], made[3].Primary) || !bytes.Equal(got.Previous[1], made[2].Primary) {
		t.Fatalf("previous keys are not the newest %d, newest first", MaxPrevious)
	}
	if err := r.Retire(4); err != nil || len(r.Current().Previous) != MaxPrevious {
		t.Fatalf("retiring another epoch changed the ring (%v)", err)
	}
	if err := r.Retire(5); err != nil {
		t.Fatal(err)
	}
	again, err := Open(r.path)
	if err != nil || len(again.Current().Previous) != 0 || !bytes.Equal(again.Current().Primary, got.Primary) {
		t.Fatalf("after Retire and reopening: %v, %v", again.Current(), err)
	}
}

func TestEverySubscriberHearsAChange(t *testing.T) {
	r := openRing(t)
	a, b := r.Changed(), r.Changed()
	mustSet(t, r, r.NewEpoch(1))
	for _, ch := range []<-chan struct{}{a, b} {
		select {
		case <-ch:
		default:
			t.Fatal("a subscriber was not told")
		}
	}
}

func TestCurrentIsACopy(t *testing.T) {
	r := openRing(t)
	mustSet(t, r, r.NewEpoch(1))
	mustSet(t, r, r.NewEpoch(2))
	k := r.Current()
	k.Primary[0] ^= 1
	k.Previous[0][0] ^= 1
	if now := r.Current(); bytes.Equal(now.Primary, k.Primary) || bytes.Equal(now.Previous[0], k.Previous[0]) {
		t.Fatal("a caller can change the ring's keys in place")
	}
}

func TestDamagedOrExposedFileIsRefused(t *testing.T) {
	r := openRing(t)
	mustSet(t, r, r.NewEpoch(1))
	whole, err := os.ReadFile(r.path)
	if err != nil {
		t.Fatal(err)
	}
	at := bytes.Index(whole, []byte(`"primary": "`)) + len(`"primary": "`)
	other := byte('A')
	if whole[at] == other {
		other = 'B'
	}
	damaged := map[string][]byte{
		"empty":         nil,
		"cut":           whole[:len(whole)/2],
		"other file":    []byte(`{"format":"skein-fleet/1"}`),
		"changed key":   append(append(bytes.Clone(whole[:at]), other), whole[at+1:]...),
		"changed epoch": bytes.Replace(whole, []byte(`"epoch": 1`), []byte(`"epoch": 2`), 1),
	}
	for name, text := range damaged {
		t.Run(name, func(t *testing.T) {
			if err := os.WriteFile(r.path, text, 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := Open(r.path); !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "remove it") {
				t.Fatalf("got %v, want ErrDamaged with what to do", err)
			}
		})
	}
	if err := os.WriteFile(r.path, whole, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(r.path, 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(r.path); !errors.Is(err, ErrExposed) {
		t.Fatalf("group-readable file: %v, want ErrExposed", err)
	}
}

func TestFailedWriteChangesNothing(t *testing.T) {
	r, err := Open(filepath.Join(t.TempDir(), "absent", "gossip.json"))
	if err != nil {
		t.Fatal(err)
	}
	changed := r.Changed()
	if err := r.Set(r.NewEpoch(1)); err == nil {
		t.Fatal("stored keys in a directory that does not exist")
	}
	select {
	case <-changed:
		t.Fatal("told a change that is not on disk")
	default:
	}
	if r.Current().Epoch != 0 {
		t.Fatal("keys are used that are not on disk")
	}
}

// exchange runs Serve and Fetch over a real TCP connection.
func exchange(t *testing.T, serve func(Stream)) (Keys, error) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		serve(c)
	}()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	k, err := Fetch(t.Context(), c)
	c.Close()
	<-done
	return k, err
}

func TestFetchGivesWhatThePeerHas(t *testing.T) {
	r := openRing(t)
	serve := func(s Stream) { r.Serve(t.Context(), s) }
	if _, err := exchange(t, serve); !errors.Is(err, ErrNoKeys) {
		t.Fatalf("empty peer: %v, want ErrNoKeys", err)
	}
	mustSet(t, r, r.NewEpoch(1))
	mustSet(t, r, r.NewEpoch(2))
	got, err := exchange(t, serve)
	if err != nil {
		t.Fatal(err)
	}
	mine := openRing(t)
	mustSet(t, mine, got)
	if want := r.Current(); !bytes.Equal(mine.Current().Primary, want.Primary) || mine.Current().Epoch != 2 {
		t.Fatal("fetched other keys than the peer has")
	}
}

func TestFetchRefusesNonsense(t *testing.T) {
	answers := map[string]string{
		"short key":     "\x00\x00\x00\x1c" + `{"epoch":1,"primary":"AAAA"}`,
		"not JSON":      "\x00\x00\x00\x02no",
		"2 GiB length":  "\x7f\xff\xff\xff",
		"ends too soon": "\x00\x00\x00\x10{",
	}
	for name, answer := range answers {
		t.Run(name, func(t *testing.T) {
			if k, err := exchange(t, func(s Stream) { fmt.Fprint(s, answer) }); err == nil {
				t.Fatalf("took %v", k)
			}
		})
	}
}

func TestFetchEndsWithItsContext(t *testing.T) {
	ours, theirs := net.Pipe()
	defer theirs.Close()
	ctx, cancel := context.WithCancel(t.Context())
	failed := make(chan error, 1)
	go func() {
		_, err := Fetch(ctx, ours)
		failed <- err
	}()
	if _, err := theirs.Read(make([]byte, 64)); err != nil { // the request is under way
		t.Fatal(err)
	}
	cancel()
	select {
	case err := <-failed:
		if err == nil {
			t.Fatal("fetched keys from a silent peer")
		}
	case <-time.After(exchangeTimeout / 2):
		t.Fatal("Fetch outlives its context")
	}
}

func TestKeysNeverPrint(t *testing.T) {
	k := Keys{}.next(3)
	var out strings.Builder
	fmt.Fprintf(&out, "%v %+v %#v %s", k, k, k, k)
	slog.New(slog.NewTextHandler(&out, nil)).Info("x", "keys", k)
	encoded, _ := json.Marshal(k.Primary)
	for _, secret := range []string{string(encoded[1:20]), fmt.Sprint(k.Primary)[1:12], fmt.Sprintf("%#x", k.Primary[:4])} {
		if strings.Contains(out.String(), secret) {
			t.Fatalf("printed a key: %s", out.String())
		}
	}
}

func FuzzDecodeFile(f *testing.F) {
	whole, err := encodeFile(Keys{}.next(1))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole)
	f.Add([]byte(`{"format":"skein-gossip-keys/1","keys":{"epoch":1}}`))
	f.Add([]byte(`{}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		k, err := decodeFile(text)
		if err != nil {
			return
		}
		if err := k.Check(); err != nil {
			t.Fatalf("accepted keys that Check refuses: %v", err)
		}
		again, err := encodeFile(k)
		if err != nil {
			t.Fatal(err)
		}
		if k2, err := decodeFile(again); err != nil || !bytes.Equal(k2.Primary, k.Primary) {
			t.Fatalf("does not survive a round trip: %v", err)
		}
	})
}

func FuzzFetch(f *testing.F) {
	f.Add([]byte("\x00\x00\x00\x0b{\"epoch\":0}"))
	f.Add([]byte("\x00\x00\x00\x1c" + `{"epoch":1,"primary":"AAAA"}`))
	f.Fuzz(func(t *testing.T, answer []byte) {
		k, err := Fetch(t.Context(), &fakeStream{in: bytes.NewReader(answer)})
		if err == nil && k.Check() != nil {
			t.Fatalf("accepted keys that Check refuses: %v", k.Check())
		}
	})
}

// fakeStream answers from memory.
type fakeStream struct{ in *bytes.Reader }

func (s *fakeStream) Read(p []byte) (int, error)  { return s.in.Read(p) }
func (s *fakeStream) Write(p []byte) (int, error) { return len(p), nil }
func (s *fakeStream) SetDeadline(time.Time) error { return nil }
