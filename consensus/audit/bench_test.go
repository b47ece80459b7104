package audit_test

import (
	"path/filepath"
	"testing"

	"skein/consensus/audit"
	"skein/consensus/backup/backuptest"
	"skein/consensus/replica"
)

// A log of a million events with a seal for every 1,000: `go test -run none
// -bench Million -benchtime 1x ./consensus/audit`.
func BenchmarkMillion(b *testing.B) {
	const events = 1_000_000
	l := backuptest.New(b, filepath.Join(b.TempDir(), "log"), replica.Options{})
	for l.Replica.Cursor().Seq < events {
		l.Labels(1000, 500)
		l.Seal()
	}
	l.Close()
	for b.Loop() {
		r, err := audit.Directory(b.Context(), l.Dir, false)
		if err != nil || !r.OK() || r.Counts.Events < events {
			b.Fatal(r, err)
		}
		b.ReportMetric(float64(r.Counts.Bytes)/1e6, "MB")
		b.ReportMetric(float64(r.Counts.Seals), "seals")
	}
	b.ReportMetric(b.Elapsed().Seconds()/float64(b.N), "s/audit")
}
