package node

import (
	"os"
	"path/filepath"
	"testing"
)

func TestBootsGrowAndSurvive(t *testing.T) {
	path := filepath.Join(t.TempDir(), "boots")
	last := uint64(0)
	for range 100 {
		boot, err := nextBoot(path)
		if err != nil {
			t.Fatal(err)
		}
		if boot <= last || boot >= 1<<53 {
			t.Fatalf("boot %d after %d: want a higher one below 2^53", boot, last)
		}
		last = boot
	}
}

func TestDamagedBootCountIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "boots")
	if err := os.WriteFile(path, []byte("many\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if boot, err := nextBoot(path); err == nil {
		t.Fatalf("a damaged count gave boot %d", boot)
	}
	if text, _ := os.ReadFile(path); string(text) != "many\n" {
		t.Fatalf("the damaged file was changed to %q", text)
	}
}
