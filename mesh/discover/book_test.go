package discover

import (
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"skein/mesh/ident"
)

func openBook(t *testing.T, path string) *Book {
	t.Helper()
	b, err := OpenBook(path, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b
}

func TestBookSurvivesAndIsBounded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "peers.json")
	b := openBook(t, path)
	last := ident.Endpoint{}
	for i := range MaxPeers + 10 {
		last = someone(t, uint16(1000+i))
		b.Put(last)
	}
	if n := len(b.All()); n != MaxPeers {
		t.Fatalf("book has %d peers, want at most %d", n, MaxPeers)
	}
	b.Forget(last.ID)
	keep := b.All()
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	got := openBook(t, path).All()
	if len(got) != len(keep) || !got[0].Equal(keep[0]) {
		t.Fatalf("after a restart: %d peers, want %d", len(got), len(keep))
	}
}

func TestBookIsSavedSoonWithoutClose(t *testing.T) {
	path := filepath.Join(t.TempDir(), "peers.json")
	b := openBook(t, path)
	e := someone(t, 1)
	b.Put(e)
	until(t, 5*time.Second, "the file has the node", func() bool {
		text, err := os.ReadFile(path)
		entries, bad := decodeBook(text)
		return err == nil && bad == nil && len(entries) == 1 && entries[0].Equal(e)
	})
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("mode %v, %v", info.Mode(), err)
	}
}

func TestBookRefusesNonsense(t *testing.T) {
	b := openBook(t, filepath.Join(t.TempDir(), "peers.json"))
	bad := someone(t, 1)
	bad.PublicKey = someone(t, 1).PublicKey
	b.Put(bad)
	if n := len(b.All()); n != 0 {
		t.Fatalf("took a node whose key is another's")
	}
}

func TestDamagedBookIsAnEmptyOne(t *testing.T) {
	path := filepath.Join(t.TempDir(), "peers.json")
	for _, text := range []string{"[{", "", `{"a":1}`, `[{"id":"x"}]`} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if n := len(openBook(t, path).All()); n != 0 {
			t.Fatalf("%q: %d peers", text, n)
		}
	}
	b := openBook(t, path)
	e := someone(t, 1)
	b.Put(e)
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if got := openBook(t, path).All(); len(got) != 1 || !got[0].Equal(e) {
		t.Fatal("a damaged book is not replaced")
	}
}

func FuzzBook(f *testing.F) {
	text, err := json.Marshal([]entry{{someone(f, 1), 1}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add([]byte(`[{"id":"x","addrs":["::1%eth0"],"seenAt":-1}]`))
	f.Fuzz(func(t *testing.T, text []byte) {
		entries, err := decodeBook(text)
		if err != nil {
			return
		}
		for _, e := range entries {
			if !e.Valid() {
				t.Fatalf("took %+v", e)
			}
		}
	})
}
