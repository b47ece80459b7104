package backup_test

import (
	"io"
	"path/filepath"
	"testing"

	"skein/consensus/backup"
	"skein/consensus/backup/backuptest"
	"skein/consensus/replica"
)

// A log of a million events: written, synced, read back and verified. `go test
// -run none -bench Million -benchtime 1x ./consensus/backup`.
func BenchmarkMillion(b *testing.B) {
	l := backuptest.New(b, filepath.Join(b.TempDir(), "log"), replica.Options{})
	l.Labels(1_000_000, 500)
	m, n := maker(l, 0), 0
	for b.Loop() {
		n++
		s, err := backup.Save(filepath.Join(b.TempDir(), "backup"), func(w io.Writer) error {
			_, err := m.Write(b.Context(), w)
			return err
		})
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(s.Bytes)/1e6, "MB")
	}
	b.ReportMetric(b.Elapsed().Seconds()/float64(n), "s/backup")
}
