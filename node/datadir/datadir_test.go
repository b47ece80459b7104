package datadir

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func TestSecondOpenIsRefusedUntilTheFirstCloses(t *testing.T) {
	path := t.TempDir()
	first, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path); !errors.Is(err, ErrInUse) {
		t.Fatalf("second open gave %v, want ErrInUse", err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := Open(path)
	if err != nil {
		t.Fatalf("open after close: %v", err)
	}
	again.Close()
}

func TestForgetKeepsEverythingInTheAttic(t *testing.T) {
	d, err := Open(filepath.Join(t.TempDir(), "data"))
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	for _, f := range []string{d.Membership(), d.NodeKey()} {
		if err := os.WriteFile(f, []byte(f), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(filepath.Join(d.Log(), "history"), 0o700); err != nil {
		t.Fatal(err)
	}
	attic, err := d.Forget(42)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range []string{d.Membership(), d.NodeKey(), d.Log()} {
		if _, err := os.Stat(f); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is still in place: %v", f, err)
		}
		if _, err := os.Stat(filepath.Join(attic, filepath.Base(f))); err != nil {
			t.Errorf("%s is not in the attic: %v", f, err)
		}
	}
	// Who joins and leaves again within a second loses nothing either.
	if err := os.WriteFile(d.NodeKey(), []byte("second"), 0o600); err != nil {
		t.Fatal(err)
	}
	again, err := d.Forget(42)
	if err != nil || again == attic {
		t.Fatalf("%q %v", again, err)
	}
	if _, err := os.Stat(filepath.Join(again, filepath.Base(d.NodeKey()))); err != nil {
		t.Fatal(err)
	}
}
