package ident

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func key(t testing.TB, seed byte) Key {
	t.Helper()
	k, err := KeyFromSeed(bytes.Repeat([]byte{seed}, ed25519.SeedSize))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

var day = time.Date(2026, 3, 1, 10, 0, 0, 123456789, time.UTC)

func TestIDIsStableAndParses(t *testing.T) {
	k := key(t, 1)
	// Written down: an id must never change between versions.
	const want = "gr2q7gf5lh6pzfdnurnkvput"
	if got := k.ID(); len(got) != 24 || got != IDOf(k.Public()) {
		t.Fatalf("id %q", got)
	} else if got != want {
		t.Fatalf("id of a known key is %q, was %q", got, want)
	}
	if id, err := ParseNodeID(string(k.ID())); err != nil || id != k.ID() {
		t.Fatalf("%q, %v", id, err)
	}
	if k.ID().Short() != string(k.ID()[:8]) || NodeID("abc").Short() != "abc" {
		t.Fatal("short form")
	}
}

func TestParseNodeIDTakesOnlyIDs(t *testing.T) {
	good := string(key(t, 1).ID())
	for _, bad := range []string{
		"", good[:23], good + "a", strings.ToUpper(good), good[:23] + "\n", good[:10] + "\r\n" + good[12:],
		good[:23] + "1", good[:23] + "=", good[:23] + "/", good[:22] + "é", "../../../../etc/passwd00",
	} {
		if id, err := ParseNodeID(bad); err == nil {
			t.Errorf("took %q as %q", bad, id)
		}
	}
}

func FuzzParseNodeID(f *testing.F) {
	f.Add("aaaaaaaaaaaaaaaaaaaaaaa\n")
	f.Add(string(NodeID("gr2q7gf5lh6pzfdnurnkvput")))
	f.Fuzz(func(t *testing.T, s string) {
		id, err := ParseNodeID(s)
		if err != nil {
			return
		}
		raw, err := idEncoding.DecodeString(s)
		if err != nil || len(raw) != nodeIDBytes || idEncoding.EncodeToString(raw) != string(id) {
			t.Fatalf("%q is not what IDOf can produce", s)
		}
	})
}

func TestSignaturesAreOfOneDomain(t *testing.T) {
	k, other := key(t, 1), key(t, 2)
	sig := k.Sign("a/1", []byte("message"))
	if !Verify(k.Public(), "a/1", []byte("message"), sig) {
		t.Fatal("own signature does not verify")
	}
	for name, ok := range map[string]bool{
		"domain":     Verify(k.Public(), "b/1", []byte("message"), sig),
		"message":    Verify(k.Public(), "a/1", []byte("massage"), sig),
		"key":        Verify(other.Public(), "a/1", []byte("message"), sig),
		"short key":  Verify(k.Public()[:31], "a/1", []byte("message"), sig),
		"no key":     Verify(nil, "a/1", []byte("message"), sig),
		"no sig":     Verify(k.Public(), "a/1", []byte("message"), nil),
		"moved byte": Verify(k.Public(), "a/1m", []byte("essage"), sig),
	} {
		if ok {
			t.Errorf("verified with another %s", name)
		}
	}
}

func TestKeyFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "node.key")
	k, err := LoadOrCreateKey(path)
	if err != nil {
		t.Fatal(err)
	}
	again, err := LoadOrCreateKey(path)
	if err != nil || again.ID() != k.ID() {
		t.Fatalf("another key at the second start: %v", err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("mode %v, %v", info.Mode(), err)
	}
	if err := key(t, 9).Save(path); !errors.Is(err, fs.ErrExist) {
		t.Fatalf("saved over an existing key: %v", err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, ".*")); len(left) != 0 {
		t.Fatalf("temporary files left: %v", left)
	}
	for _, mode := range []fs.FileMode{0o640, 0o604, 0o666, 0o610} {
		os.Chmod(path, mode)
		if _, err := LoadKey(path); !errors.Is(err, ErrKeyExposed) || !strings.Contains(err.Error(), "chmod 600 "+path) {
			t.Errorf("mode %o: %v", mode, err)
		}
		if _, err := LoadOrCreateKey(path); !errors.Is(err, ErrKeyExposed) {
			t.Errorf("mode %o: %v", mode, err)
		}
	}
}

func TestDamagedKeyFileIsRefusedAndKept(t *testing.T) {
	seed := bytes.Repeat([]byte{1}, ed25519.SeedSize)
	whole := pem.EncodeToMemory(&pem.Block{Type: keyPEMType, Bytes: seed})
	for name, content := range map[string][]byte{
		"empty":       nil,
		"zeros":       make([]byte, 100),
		"half":        whole[:len(whole)/2],
		"other type":  pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: seed}),
		"short":       pem.EncodeToMemory(&pem.Block{Type: keyPEMType, Bytes: seed[:31]}),
		"two keys":    append(append([]byte{}, whole...), whole...),
		"flipped pad": bytes.Replace(whole, []byte("AQ"), []byte("A!"), 1),
	} {
		path := filepath.Join(t.TempDir(), "node.key")
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := LoadOrCreateKey(path); !errors.Is(err, ErrKeyDamaged) {
			t.Errorf("%s: %v", name, err)
		}
		if now, _ := os.ReadFile(path); !bytes.Equal(now, content) {
			t.Errorf("%s: the file was changed", name)
		}
	}
	if _, err := KeyFromSeed(seed[:31]); err == nil {
		t.Error("a short seed made a key")
	}
}

func TestReplaceDurablyKeepsTheOldFileOnFailure(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "file")
	for _, text := range []string{"one", "two", ""} {
		if err := ReplaceDurably(path, []byte(text)); err != nil {
			t.Fatal(err)
		}
		if got, _ := os.ReadFile(path); string(got) != text {
			t.Fatalf("holds %q", got)
		}
	}
	busy := filepath.Join(dir, "busy")
	if err := os.MkdirAll(filepath.Join(busy, "child"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := ReplaceDurably(busy, []byte("x")); err == nil || !strings.Contains(err.Error(), busy) {
		t.Fatalf("replaced a directory: %v", err)
	}
	if err := ReplaceDurably(filepath.Join(dir, "no", "such", "file"), nil); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("got %v", err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, ".*")); len(left) != 0 {
		t.Fatalf("temporary files left: %v", left)
	}
}

func TestFleetFile(t *testing.T) {
	root, enrolment := key(t, 1), key(t, 2)
	path := filepath.Join(t.TempDir(), "fleet.json")
	f := NewFleetFile("geese", root.Public(), enrolment)
	if err := f.Save(path); err != nil {
		t.Fatal(err)
	}
	if err := f.Save(path); !errors.Is(err, fs.ErrExist) {
		t.Fatalf("saved over a fleet file: %v", err)
	}
	got, err := LoadFleetFile(path)
	if err != nil || got.Name != "geese" || got.Fleet != FleetIDOf(root.Public()) {
		t.Fatalf("%+v, %v", got, err)
	}
	if k, err := got.Enrolment(); err != nil || k.ID() != enrolment.ID() {
		t.Fatalf("enrolment key: %v", err)
	}
	text, _ := os.ReadFile(path)
	if bytes.Contains(text, []byte(`"`+string(root.Seed())+`"`)) {
		t.Fatal("the root's private key is in the file")
	}
	if _, err := LoadFleetFile(path + ".missing"); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("got %v", err)
	}
}

func TestWrongFleetFilesAreRefused(t *testing.T) {
	good := NewFleetFile("geese", key(t, 1).Public(), key(t, 2))
	change := func(fn func(*FleetFile)) string {
		f := good
		fn(&f)
		text, _ := json.Marshal(f)
		return string(text)
	}
	for name, text := range map[string]string{
		"empty":          "",
		"half":           change(func(*FleetFile) {})[:50],
		"other format":   change(func(f *FleetFile) { f.Format = "skein-fleet/2" }),
		"another root":   change(func(f *FleetFile) { f.Root = key(t, 3).Public() }),
		"another fleet":  change(func(f *FleetFile) { f.Fleet = FleetIDOf(key(t, 3).Public()) }),
		"short root":     change(func(f *FleetFile) { f.Root = f.Root[:5] }),
		"no enrolment":   change(func(f *FleetFile) { f.EnrolmentSeed = nil }),
		"long enrolment": change(func(f *FleetFile) { f.EnrolmentSeed = make([]byte, 33) }),
		"not a fleet":    `{"hello":1}`,
		"a list":         `[]`,
	} {
		path := filepath.Join(t.TempDir(), "fleet.json")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := LoadFleetFile(path); !errors.Is(err, ErrBadFleetFile) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestJoinToken(t *testing.T) {
	root := key(t, 1)
	token, other := NewJoinToken(root.Public()), NewJoinToken(root.Public())
	if token.Hash() == other.Hash() || len(token.Hash()) != 24 || strings.Contains(token.String(), token.Hash()) {
		t.Fatal("hashes")
	}
	got, err := ParseJoinToken("  " + token.String() + "\n")
	if err != nil || !got.Root.Equal(root.Public()) || !bytes.Equal(got.Secret, token.Secret) || got.Hash() != token.Hash() {
		t.Fatalf("%+v, %v", got, err)
	}
	text := token.String()
	for i := len(tokenPrefix); i < len(text); i++ {
		for _, c := range []byte{'A', 'z', '7', '_'} {
			if c == text[i] {
				continue
			}
			mistyped := text[:i] + string(c) + text[i+1:]
			if _, err := ParseJoinToken(mistyped); !errors.Is(err, ErrBadToken) {
				t.Fatalf("character %d mistyped as %c: %v", i, c, err)
			}
		}
	}
	for _, bad := range []string{"", "skein-join-", text[1:], text[:len(text)-1], text + "A", strings.ToUpper(text)} {
		if _, err := ParseJoinToken(bad); !errors.Is(err, ErrBadToken) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func FuzzParseJoinToken(f *testing.F) {
	f.Add(NewJoinToken(key(f, 1).Public()).String())
	f.Add("skein-join-")
	f.Fuzz(func(t *testing.T, s string) {
		token, err := ParseJoinToken(s)
		if err != nil {
			if !errors.Is(err, ErrBadToken) {
				t.Fatal(err)
			}
			return
		}
		if again, err := ParseJoinToken(token.String()); err != nil || again.Hash() != token.Hash() {
			t.Fatalf("does not round trip: %v", err)
		}
	})
}

// chain is root → a (may issue) → b (may issue) → c.
func chain(t testing.TB) (root Key, ch Chain) {
	root = key(t, 1)
	fleet := FleetIDOf(root.Public())
	a := NewChain(fleet, key(t, 2).Public(), true, day, root, nil)
	b := NewChain(fleet, key(t, 3).Public(), true, day, key(t, 2), a)
	return root, NewChain(fleet, key(t, 4).Public(), false, day, key(t, 3), b)
}

func TestChainVerifies(t *testing.T) {
	root, ch := chain(t)
	for i := range ch {
		holder, err := ch[i:].Verify(root.Public())
		if err != nil || holder.Node() != key(t, byte(4-i)).ID() {
			t.Fatalf("from %d: %v", i, err)
		}
	}
	text, err := json.Marshal(ch)
	if err != nil {
		t.Fatal(err)
	}
	var again Chain
	if err := json.Unmarshal(text, &again); err != nil {
		t.Fatal(err)
	}
	if _, err := again.Verify(root.Public()); err != nil {
		t.Fatalf("after JSON: %v", err)
	}
}

func TestChainsThatProveNothing(t *testing.T) {
	stranger := key(t, 9)
	fleetOf := func(k Key) FleetID { return FleetIDOf(k.Public()) }
	for name, c := range map[string]struct {
		make func(root Key, ch Chain) Chain
		want error
	}{
		"empty":               {func(Key, Chain) Chain { return nil }, ErrBadCertificate},
		"cut at the root":     {func(_ Key, ch Chain) Chain { return ch[:2] }, ErrNotOfFleet},
		"link missing":        {func(_ Key, ch Chain) Chain { return Chain{ch[0], ch[2]} }, ErrBadCertificate},
		"reversed":            {func(_ Key, ch Chain) Chain { return Chain{ch[2], ch[1], ch[0]} }, nil},
		"holder exchanged":    {func(_ Key, ch Chain) Chain { ch[0].PublicKey = stranger.Public(); return ch }, ErrBadCertificate},
		"right added":         {func(_ Key, ch Chain) Chain { ch[0].MayIssue = true; return ch }, ErrBadCertificate},
		"date changed":        {func(_ Key, ch Chain) Chain { ch[0].IssuedAt = day.Add(time.Hour); return ch }, ErrBadCertificate},
		"signature cut":       {func(_ Key, ch Chain) Chain { ch[1].Signature = ch[1].Signature[:63]; return ch }, ErrBadCertificate},
		"signature of other":  {func(_ Key, ch Chain) Chain { ch[1].Signature = ch[2].Signature; return ch }, ErrBadCertificate},
		"another fleet named": {func(_ Key, ch Chain) Chain { ch[0].Fleet = fleetOf(stranger); return ch }, ErrNotOfFleet},
		"another root": {func(Key, Chain) Chain {
			return NewChain(fleetOf(stranger), key(t, 4).Public(), false, day, stranger, nil)
		}, ErrNotOfFleet},
		"another root in this fleet's name": {func(root Key, _ Chain) Chain {
			return NewChain(fleetOf(root), key(t, 4).Public(), false, day, stranger, nil)
		}, ErrNotOfFleet},
		"root named, another signed": {func(root Key, _ Chain) Chain {
			ch := NewChain(fleetOf(root), key(t, 4).Public(), false, day, stranger, nil)
			ch[0].Issuer = root.Public()
			return ch
		}, ErrBadCertificate},
		"issuer without the right": {func(root Key, _ Chain) Chain {
			above := NewChain(fleetOf(root), key(t, 2).Public(), false, day, root, nil)
			return NewChain(fleetOf(root), key(t, 4).Public(), false, day, key(t, 2), above)
		}, ErrBadCertificate},
		"short holder key": {func(root Key, _ Chain) Chain {
			return NewChain(fleetOf(root), key(t, 4).Public()[:31], false, day, root, nil)
		}, ErrBadCertificate},
		"too long": {func(root Key, ch Chain) Chain {
			for len(ch) <= MaxChain {
				ch = NewChain(fleetOf(root), key(t, 3).Public(), true, day, key(t, 3), ch[1:])
				ch = append(Chain{ch[0]}, ch...)
			}
			return ch
		}, ErrBadCertificate},
	} {
		root, ch := chain(t)
		_, err := c.make(root, ch).Verify(root.Public())
		if err == nil || c.want != nil && !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	_, ch := chain(t)
	if _, err := ch.Verify(nil); err == nil {
		t.Error("verified without a root")
	}
}

func TestChainOfTheLargestLengthVerifies(t *testing.T) {
	root := key(t, 1)
	fleet := FleetIDOf(root.Public())
	issuer, ch := root, Chain(nil)
	for i := range MaxChain {
		subject := key(t, byte(10+i))
		ch = NewChain(fleet, subject.Public(), true, day, issuer, ch)
		issuer = subject
	}
	if _, err := ch.Verify(root.Public()); err != nil {
		t.Fatal(err)
	}
	ch = NewChain(fleet, key(t, 99).Public(), true, day, issuer, ch)
	if _, err := ch.Verify(root.Public()); !errors.Is(err, ErrBadCertificate) {
		t.Fatalf("one more: %v", err)
	}
}

func TestPeersTextInErrorsIsTame(t *testing.T) {
	root, ch := chain(t)
	ch[0].Fleet = FleetID("x\n\x1b[2J" + strings.Repeat("y", 5000))
	_, err := ch.Verify(root.Public())
	if err == nil || strings.ContainsAny(err.Error(), "\n\x1b") || len(err.Error()) > 300 {
		t.Fatalf("got %q", err)
	}
}

func FuzzChain(f *testing.F) {
	root, ch := chain(f)
	for _, c := range []Chain{nil, ch, ch[1:], ch[:2]} {
		text, _ := json.Marshal(c)
		f.Add(text)
	}
	genuine := map[string]bool{}
	for i := range ch {
		genuine[string(ch[i].PublicKey)] = true
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var c Chain
		if json.Unmarshal(data, &c) != nil {
			return
		}
		if holder, err := c.Verify(root.Public()); err == nil && !genuine[string(holder.PublicKey)] {
			t.Fatalf("verified %s", holder.Node())
		}
	})
}

func TestEndpoint(t *testing.T) {
	k := key(t, 1)
	good := Endpoint{ID: k.ID(), PublicKey: k.Public(), Addrs: []netip.Addr{netip.MustParseAddr("192.0.2.1")}, LinkPort: 7781}
	if !good.Valid() || !good.Equal(good) {
		t.Fatal("a good endpoint is not valid")
	}
	for name, change := range map[string]func(*Endpoint){
		"id of another":  func(e *Endpoint) { e.ID = key(t, 2).ID() },
		"key of another": func(e *Endpoint) { e.PublicKey = key(t, 2).Public() },
		"short key":      func(e *Endpoint) { e.PublicKey = e.PublicKey[:3] },
		"no address":     func(e *Endpoint) { e.Addrs = nil },
		"too many":       func(e *Endpoint) { e.Addrs = make([]netip.Addr, MaxAddrs+1) },
		"no port":        func(e *Endpoint) { e.LinkPort = 0 },
	} {
		e := good
		change(&e)
		if e.Valid() {
			t.Errorf("%s: valid", name)
		}
	}
	moved := good
	moved.Addrs = []netip.Addr{netip.MustParseAddr("192.0.2.2")}
	if moved.Equal(good) {
		t.Error("a moved endpoint is equal")
	}
}
