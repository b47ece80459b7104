package backup

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"skein/consensus/event"
	"skein/consensus/fleet"
	"skein/mesh/ident"
)

const (
	// retryAfter is the wait after a backup that failed, when Every is longer.
	retryAfter = 10 * time.Minute
	// timeForm stands in the name of a file; names sort by time.
	timeForm = "20060102T150405Z"
	suffix   = ".skein-backup"
)

// Schedule makes backups into a directory from time to time and keeps the
// newest few.
type Schedule struct {
	Maker *Maker
	// Dir is made if it is not there. It may hold other files too.
	Dir string
	// Every is the time from one backup to the next, more than 0. Keep is how
	// many stay, at least 1.
	Every time.Duration
	Keep  int
	Log   *slog.Logger
}

// Run makes backups until ctx ends (nil). A failure is logged and tried again:
// it does not end the node, and costs no old backup.
func (s Schedule) Run(ctx context.Context) error {
	if s.Every <= 0 || s.Keep < 1 || s.Dir == "" {
		return fmt.Errorf("scheduled backups: directory %q, every %s, keep %d: all must be set", s.Dir, s.Every, s.Keep)
	}
	wait := s.untilNext()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
		wait = s.Every
		if err := s.Once(ctx); err != nil && ctx.Err() == nil {
			s.Log.Error("scheduled backup failed, it will be tried again", "dir", s.Dir, "error", err)
			wait = min(s.Every, retryAfter)
		}
	}
}

// untilNext is how long the newest backup is good for.
func (s Schedule) untilNext() time.Duration {
	kept, err := s.kept()
	if err != nil || len(kept) == 0 {
		return 0
	}
	age := s.Maker.cfg.Now().Sub(kept[len(kept)-1].at)
	if age < 0 { // the clock went back
		return s.Every
	}
	return max(0, s.Every-age)
}

// Once makes a backup now, unless the newest one is of the same moment of the
// log, and then removes those that are too many.
func (s Schedule) Once(ctx context.Context) error {
	if err := os.MkdirAll(s.Dir, 0o700); err != nil {
		return fmt.Errorf("make backup directory: %w; correct `[backup] dir`, or give the node's user the right to write there", err)
	}
	kept, err := s.kept()
	if err != nil {
		return err
	}
	var now event.Cursor
	s.Maker.cfg.Source.ViewAt(func(_ *fleet.State, at event.Cursor) { now = at })
	if n := len(kept); n > 0 && kept[n-1].seq == now.Seq && strings.HasPrefix(now.Hash, kept[n-1].hash) {
		s.Log.Debug("nothing was decided since the last backup", "file", kept[n-1].name)
		return s.clear(kept)
	}
	// The file is named after what it holds, which is known when it is written.
	path := filepath.Join(s.Dir, "next"+suffix)
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("clear an unfinished backup: %w", err)
	}
	made, err := Save(path, func(w io.Writer) error { _, err := s.Maker.Write(ctx, w); return err })
	if err != nil {
		return err
	}
	name := FileName(made)
	if err := os.Rename(path, filepath.Join(s.Dir, name)); err != nil {
		return fmt.Errorf("name backup: %w", err)
	}
	if err := syncDir(s.Dir); err != nil {
		return err
	}
	s.Log.Info("backup made", "file", filepath.Join(s.Dir, name), "bytes", made.Bytes, "lastSeq", made.End.Seq)
	if kept, err = s.kept(); err != nil {
		return err
	}
	return s.clear(kept)
}

// FileName is how a scheduled backup is called: fleet, time, last event and the
// start of its hash.
func FileName(s Summary) string {
	return fmt.Sprintf("%s-%s-%d-%.8s%s", s.Fleet, s.At.UTC().Format(timeForm), s.End.Seq, s.End.Hash, suffix)
}

var named = regexp.MustCompile(`^([a-z2-7]{24})-(\d{8}T\d{6}Z)-(\d+)-([0-9a-f]{8})\.skein-backup$`)

// file is a backup that is kept.
type file struct {
	name, hash string
	at         time.Time
	seq        uint64
}

// kept are the backups of this fleet in the directory, oldest first. Other
// files are nobody's business.
func (s Schedule) kept() ([]file, error) {
	entries, err := os.ReadDir(s.Dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list backups: %w", err)
	}
	var own string
	s.Maker.cfg.Source.ViewAt(func(state *fleet.State, _ event.Cursor) {
		if f, ok := state.Fleet(); ok {
			own = string(ident.FleetIDOf(f.Root))
		}
	})
	var kept []file
	for _, e := range entries {
		m := named.FindStringSubmatch(e.Name())
		if m == nil || m[1] != own {
			continue
		}
		at, timeErr := time.Parse(timeForm, m[2])
		seq, seqErr := strconv.ParseUint(m[3], 10, 64)
		if timeErr == nil && seqErr == nil {
			kept = append(kept, file{e.Name(), m[4], at, seq})
		}
	}
	slices.SortFunc(kept, func(a, b file) int { return cmp.Or(a.at.Compare(b.at), cmp.Compare(a.seq, b.seq)) })
	return kept, nil
}

// clear removes the oldest backups that are too many, and what an interrupted
// write left.
func (s Schedule) clear(kept []file) error {
	for len(kept) > s.Keep {
		if err := os.Remove(filepath.Join(s.Dir, kept[0].name)); err != nil {
			return fmt.Errorf("remove old backup: %w", err)
		}
		kept = kept[1:]
	}
	left, err := filepath.Glob(filepath.Join(s.Dir, unfinishedPrefix+"next"+suffix+".*"))
	for _, path := range left {
		err = errors.Join(err, os.Remove(path))
	}
	if err != nil {
		return fmt.Errorf("clear unfinished backups: %w", err)
	}
	return nil
}
