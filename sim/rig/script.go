package rig

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"
)

// Script runs fn as a test would be run, for programs that are none, such as
// benchmarks: what fn registers with t.Cleanup is done in the end, and a failure
// or a skip is the error. t.Log goes to standard error. Of testing.TB there are
// Helper, Name, Log, Error, Fatal, Skip and their kin, Failed, Cleanup, Context,
// TempDir and ArtifactDir; a call of another method panics.
func Script(name string, fn func(t testing.TB)) (err error) {
	dir, err := os.MkdirTemp("", "skein-script-")
	if err != nil {
		return fmt.Errorf("run %s: %w", name, err)
	}
	defer os.RemoveAll(dir)
	s := &script{name: name, dir: dir}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.run(func() { fn(s) })
	s.cancel()
	for _, cleanup := range slices.Backward(s.cleanups) {
		s.run(cleanup)
	}
	return errors.Join(s.faults...)
}

// script is the testing.TB of Script. Its methods belong to one goroutine at a
// time, like fn itself.
type script struct {
	testing.TB // nil: for the unexported method only

	name     string
	dir      string
	ctx      context.Context
	cancel   context.CancelFunc
	cleanups []func()
	faults   []error
	dirs     int
}

// run calls fn on a goroutine of its own, which FailNow and SkipNow end.
func (s *script) run(fn func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		fn()
	}()
	<-done
}

func (s *script) fault(text string) { s.faults = append(s.faults, errors.New(text)) }

func (s *script) Helper()                           {}
func (s *script) Name() string                      { return s.name }
func (s *script) Context() context.Context          { return s.ctx }
func (s *script) Cleanup(fn func())                 { s.cleanups = append(s.cleanups, fn) }
func (s *script) ArtifactDir() string               { return s.dir }
func (s *script) Failed() bool                      { return len(s.faults) > 0 }
func (s *script) Log(args ...any)                   { fmt.Fprintln(os.Stderr, args...) }
func (s *script) Logf(format string, args ...any)   { fmt.Fprintf(os.Stderr, format+"\n", args...) }
func (s *script) Fail()                             { s.fault(s.name + " failed") }
func (s *script) FailNow()                          { s.Fail(); runtime.Goexit() }
func (s *script) Error(args ...any)                 { s.fault(fmt.Sprint(args...)) }
func (s *script) Errorf(format string, args ...any) { s.fault(fmt.Sprintf(format, args...)) }
func (s *script) Fatal(args ...any)                 { s.Error(args...); runtime.Goexit() }
func (s *script) Fatalf(format string, args ...any) { s.Errorf(format, args...); runtime.Goexit() }
func (s *script) Skip(args ...any)                  { s.Fatal("skipped: " + fmt.Sprint(args...)) }
func (s *script) Skipf(format string, args ...any)  { s.Skip(fmt.Sprintf(format, args...)) }
func (s *script) SkipNow()                          { s.Skip("no reason given") }
func (s *script) Skipped() bool                     { return false }

func (s *script) TempDir() string {
	s.dirs++
	dir := filepath.Join(s.dir, fmt.Sprint(s.dirs))
	if err := os.Mkdir(dir, 0o700); err != nil {
		s.Fatal(err)
	}
	return dir
}
