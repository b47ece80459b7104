package backup_test

import (
	"bytes"
	"testing"

	"skein/consensus/backup"
)

// Whatever the bytes are, reading ends without a panic, and what is accepted is
// exactly what a maker wrote.
func FuzzRead(f *testing.F) {
	_, good := small(f)
	f.Add(good)
	f.Add(good[:len(good)/2])
	f.Add(good[:8])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		_, err := backup.Read(bytes.NewReader(b), backup.Visitor{})
		if err == nil && !bytes.Equal(b, good) {
			t.Error("accepted, and nobody signed it")
		}
	})
}
