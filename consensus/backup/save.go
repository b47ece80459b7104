package backup

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// Save makes a new file at path of what write writes into it. The file appears
// there only when all of it is on the disk, was read back and verified; before
// that, and after any error, there is none. An existing file is not touched
// (fs.ErrExist).
func Save(path string, write func(io.Writer) error) (Summary, error) {
	s, err := save(path, write)
	if err != nil {
		return Summary{}, fmt.Errorf("save backup: %w", err)
	}
	return s, nil
}

func save(path string, write func(io.Writer) error) (s Summary, err error) {
	if _, err := os.Lstat(path); err == nil {
		return s, fmt.Errorf("%s: %w; choose another name, or move that file away", path, fs.ErrExist)
	}
	f, err := os.CreateTemp(filepath.Dir(path), unfinishedPrefix+filepath.Base(path)+".*")
	if err != nil {
		return s, fmt.Errorf("%w; make the folder, or choose another", err)
	}
	defer func() {
		if err != nil {
			os.Remove(f.Name())
		}
	}()
	err = write(f)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return s, err
	}
	if s, err = VerifyFile(f.Name()); err != nil {
		return s, fmt.Errorf("what was written does not verify: %w", err)
	}
	// Link refuses an existing name, which rename would overwrite.
	if err = os.Link(f.Name(), path); err != nil {
		return s, err
	}
	if err = os.Remove(f.Name()); err != nil {
		return s, err
	}
	return s, syncDir(filepath.Dir(path))
}

// unfinishedPrefix begins the name of a file that is being written.
const unfinishedPrefix = ".unfinished-"

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
