package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A module of its own, run by the real go test: the form of its events is not
// ours to assume.
func TestRunTellsPassedFailedAndSkipped(t *testing.T) {
	for _, tc := range []struct {
		name, test string
		noSkip     bool
		code       int
		says       []string
		not        []string
	}{
		{"passes", `func TestGood(t *testing.T) { t.Log("chatter") }`, true, 0,
			[]string{"ok    probe/p", "1 tests passed, 0 failed, 0 not run"}, []string{"chatter", "Not run"}},
		{"skips", `func TestNeedy(t *testing.T) { t.Skip("needs root, to test") }
func TestParent(t *testing.T) { t.Run("child", func(t *testing.T) { t.Skip("needs root, to test") }) }`, false, 0,
			[]string{"Not run:\n  needs root, to test\n    probe/p.TestNeedy\n    probe/p.TestParent/child\n", "2 not run"}, []string{"FAIL"}},
		{"skips in CI", `func TestNeedy(t *testing.T) { t.SkipNow() }`, true, 1,
			[]string{"no reason given\n    probe/p.TestNeedy", "SKEIN_NO_SKIP=1 allows no"}, nil},
		{"fails", `func TestBad(t *testing.T) { t.Error("four robots, want five") }
func TestGood(t *testing.T) { t.Log("chatter") }`, false, 1,
			[]string{"four robots, want five", "FAIL  probe/p", "Failed:\n  probe/p.TestBad\n\n1 tests passed, 1 failed"}, []string{"chatter"}},
		{"fails inside", `func TestBad(t *testing.T) { t.Run("deep", func(t *testing.T) { t.Fatal("here") }) }`, false, 1,
			[]string{"here", "Failed:\n  probe/p.TestBad/deep\n\n", "1 failed"}, nil},
		{"panics", `func TestBad(t *testing.T) { panic("boom") }`, false, 1, []string{"boom", "FAIL  probe/p"}, nil},
		{"does not build", `func TestBad(t *testing.T) { undefined() }`, false, 1, []string{"undefined: undefined", "FAIL  probe/p"}, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			module := t.TempDir()
			write(t, filepath.Join(module, "go.mod"), "module probe\n\ngo 1.26\n")
			write(t, filepath.Join(module, "p", "p_test.go"), "package p\n\nimport \"testing\"\n\n"+tc.test+"\n")
			write(t, filepath.Join(module, "empty", "empty.go"), "package empty\n")
			t.Chdir(module)
			var out strings.Builder
			if code := run(&out, "", []string{"./..."}, tc.noSkip); code != tc.code {
				t.Errorf("exit code %d, want %d", code, tc.code)
			}
			for _, want := range tc.says {
				if !strings.Contains(out.String(), want) {
					t.Errorf("does not say %q", want)
				}
			}
			for _, not := range tc.not {
				if strings.Contains(out.String(), not) {
					t.Errorf("says %q", not)
				}
			}
			if t.Failed() {
				t.Logf("said:\n%s", out.String())
			}
		})
	}
}

func TestGoTestItselfFails(t *testing.T) {
	t.Chdir(t.TempDir())
	var out strings.Builder
	if code := run(&out, "", []string{"./nowhere"}, false); code == 0 {
		t.Errorf("exit code 0; said:\n%s", out.String())
	}
}

func TestConsole(t *testing.T) {
	dir := t.TempDir()
	said := func(code int, parts ...string) {
		t.Helper()
		var out strings.Builder
		r := newReport(&out)
		runConsole(r, dir)
		if got := r.end(time.Second, true); got != code {
			t.Errorf("exit code %d, want %d", got, code)
		}
		for _, part := range parts {
			if !strings.Contains(out.String(), part) {
				t.Errorf("does not say %q:\n%s", part, out.String())
			}
		}
	}
	said(1, "package.json", "console")
	write(t, filepath.Join(dir, "package.json"), `{"scripts":{"test":"true"}}`)
	bin := t.TempDir()
	t.Setenv("PATH", bin)
	said(1, "needs npm")
	write(t, filepath.Join(bin, "npm"), "#!/bin/sh\necho \"npm $* in ${PWD##*/}\"\n[ -e fine ]\n")
	if err := os.Chmod(filepath.Join(bin, "npm"), 0o755); err != nil {
		t.Fatal(err)
	}
	said(1, "run `make build`")
	if err := os.Mkdir(filepath.Join(dir, "node_modules"), 0o755); err != nil {
		t.Fatal(err)
	}
	said(1, "npm test --silent in "+filepath.Base(dir), "FAIL  console")
	write(t, filepath.Join(dir, "fine"), "")
	said(0, "ok    console")
}

func TestReasonIsTheLastOne(t *testing.T) {
	const output = "=== RUN   TestX\n    a_test.go:3: some log: with colons\n    a_test.go:9: needs chromium (Debian package chromium)\n--- SKIP: TestX (0.00s)\n"
	if got := reason(output); got != "needs chromium (Debian package chromium)" {
		t.Errorf("got %q", got)
	}
}

func TestOutputIsBounded(t *testing.T) {
	var out strings.Builder
	r := newReport(&out)
	for range 3 {
		r.event(event{Action: "output", Package: "p", Test: "T", Output: strings.Repeat("x", outputBytes) + "end\n"})
	}
	r.event(event{Action: "fail", Package: "p", Test: "T"})
	if out.Len() > outputBytes || !strings.HasSuffix(out.String(), "end\n") {
		t.Errorf("shows %d bytes", out.Len())
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}
