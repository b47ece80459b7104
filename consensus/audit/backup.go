package audit

import (
	"context"
	"errors"
	"fmt"
	"os"

	"skein/consensus/backup"
	"skein/consensus/fleet"
	"skein/consensus/history"
)

// Backup audits a backup file: what reading it checks, and the seals. What is
// wrong is in the report, with where in the file; damage ends the audit there.
func Backup(ctx context.Context, path string) (*Report, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("audit backup: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("audit backup: %w", err)
	}
	r := &Report{Source: path, Findings: []Finding{}, Counts: Counts{Files: 1, Bytes: info.Size()}}
	t := newTrail(r)
	t.begin(history.Position{}, fleet.New())
	_, err = backup.Read(f, backup.Visitor{
		State: func(s *fleet.State, at history.Position) error { t.begin(at, s.Clone()); return nil },
		Record: func(rec history.Record, at int64) error {
			if err := ctx.Err(); err != nil {
				return err
			}
			own, why := parseRecord(rec.Bytes(), t.at)
			if why != "" { // the reader of backups would have to be wrong
				return &backup.Damage{Offset: at, Why: why}
			}
			t.record(own, place{path, at})
			return nil
		},
	})
	t.finish()
	switch damage, ok := errors.AsType[*backup.Damage](err); {
	case ok:
		r.add(Finding{File: path, Offset: damage.Offset, Event: t.at.Seq + 1, Problem: damage.Why})
	case errors.Is(err, backup.ErrUntrusted):
		r.add(Finding{File: path, Problem: err.Error()})
	case err != nil:
		return nil, fmt.Errorf("audit backup %s: %w", path, err)
	}
	return r, nil
}
