package history

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// Step is one thing that Walk found in the files of a log.
type Step struct {
	// File and Offset are where it lies: a path and a byte.
	File   string
	Offset int64
	// Start says that a segment begins here, after Base. Reset says that what was
	// before it was given up on purpose.
	Start, Reset bool
	Base         Position
	// Record is what lies here, unless Start or Err is set. Whether it follows the
	// one before is not checked.
	Record Record
	// Err is what is broken here; the rest of the file is left out. ErrDamaged.
	Err error
}

// Walk reads the segments in dir, oldest first, without changing anything, also
// while a node writes there: a record that is just being written at the very end
// then looks broken. It ends when each returns an error, and gives that.
//
// Leftovers of an interrupted creation are not looked at.
func Walk(dir string, each func(Step) error) error {
	paths, err := filepath.Glob(filepath.Join(dir, "*"+segmentSuffix)) // sorted
	if err != nil {
		return fmt.Errorf("walk history: %w", err)
	}
	for _, path := range paths {
		if strings.HasPrefix(filepath.Base(path), ".") {
			continue
		}
		if err := walkSegment(path, each); err != nil {
			return err
		}
	}
	return nil
}

func walkSegment(path string, each func(Step) error) error {
	s, err := readHeader(path)
	if err != nil {
		return each(Step{File: path, Err: err})
	}
	if err := each(Step{File: path, Start: true, Reset: s.reset(), Base: s.base}); err != nil {
		return err
	}
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("walk history: %w", err)
	}
	defer f.Close()
	if _, err := f.Seek(segmentHeader, io.SeekStart); err != nil {
		return fmt.Errorf("walk history: %w", err)
	}
	r := bufio.NewReaderSize(f, 256<<10)
	for at := int64(segmentHeader); ; {
		b, why, err := readFrame(r, nil)
		switch {
		case err != nil:
			return fmt.Errorf("walk history %s: %w", path, err)
		case why != "":
			return each(Step{File: path, Offset: at, Err: damaged(path, at, why)})
		case b == nil:
			return nil
		}
		step := Step{File: path, Offset: at}
		if step.Record, err = ParseRecord(b); err != nil {
			step.Err = damaged(path, at, err.Error())
		}
		if err := each(step); err != nil || step.Err != nil {
			return err
		}
		at += int64(frameHeader + len(b))
	}
}
