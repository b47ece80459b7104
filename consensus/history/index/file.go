package index

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
)

// Suffix is that of index files. One that is being written has a name that begins
// with a dot and has Suffix and a dot in it; after a crash it may be removed.
const Suffix = ".idx"

// Path is where the index of a file lies: beside it, with another suffix.
func Path(of string) string {
	return strings.TrimSuffix(of, filepath.Ext(of)) + Suffix
}

// errUnusable: an index file is missing, damaged or of another file. It never
// leaves the package: the index is made anew.
var errUnusable = errors.New("history index is not usable")

// IdentityBytes is the length of a Source's Identity.
const IdentityBytes = 80

// Source is a file of events that has got its last one.
type Source struct {
	// Path is the file's.
	Path string
	// Identity tells it, and what is in it, from all others.
	Identity [IdentityBytes]byte
	// Events is how many it has; Bytes is where the last one ends.
	Events int
	Bytes  int64
}

// File is the index file of a Source. It is for any goroutine.
type File struct {
	of     Source
	remake func() (*Memory, error)
	// known is what is kept of it once it was read.
	known atomic.Pointer[head]
}

// NewFile gives the index of a file, whether it is written or not. remake makes it
// by reading the whole file; it is called when the index is missing or damaged.
func NewFile(of Source, remake func() (*Memory, error)) *File {
	return &File{of: of, remake: remake}
}

// Write puts the index file in place. If it cannot, that is no harm: the next
// question takes longer and tries again.
func (f *File) Write(m *Memory) {
	_ = replace(Path(f.of.Path), m.encode(&f.of))
	if _, err := os.Stat(f.of.Path); errors.Is(err, fs.ErrNotExist) { // dropped meanwhile
		os.Remove(Path(f.of.Path))
	}
}

// Remember keeps of m what else the first question would read.
func (f *File) Remember(m *Memory) {
	head := m.is
	head.sieve = m.newSieve()
	f.known.Store(&head)
}

// replace puts a file in place. It is not made durable: after a power cut it may
// be anything, which is found, and it is made anew.
func replace(path string, content []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return fmt.Errorf("write history index: %w", err)
	}
	_, err = f.Write(content)
	if closed := f.Close(); err == nil {
		err = closed
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
		return fmt.Errorf("write history index: %w", err)
	}
	return nil
}

func (f *File) ask(r *Reader, question func(rows) error) (indexed bool, err error) {
	err = f.askOnce(r, question)
	if !errors.Is(err, errUnusable) {
		return true, err
	}
	r.of.making.Lock()
	defer r.of.making.Unlock()
	if err = f.askOnce(r, question); !errors.Is(err, errUnusable) { // another made it meanwhile
		return false, err
	}
	m, err := f.remake()
	if err != nil {
		return false, err
	}
	f.Write(m)
	return false, question(m)
}

func (f *File) askOnce(r *Reader, question func(rows) error) error {
	x := &opened{of: &f.of, pages: &r.pages}
	defer x.close()
	known := f.known.Load()
	if known == nil {
		var err error
		if known, err = x.whole(); err != nil {
			return err
		}
		f.known.Store(known)
	}
	x.is = *known
	return question(x)
}
