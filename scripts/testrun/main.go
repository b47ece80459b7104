// Command testrun runs the project's tests and ends with what it could not run
// and why: a skipped test is a test that did not happen, and nobody reads the
// middle of a log.
//
//	testrun [-console DIR] -- [flags and packages of go test]
//
// A test that lacks something calls t.Skip("needs …"). With SKEIN_NO_SKIP=1, as
// in CI, one skip fails the run.
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

func main() {
	console := flag.String("console", "", "folder of the console, to run its tests as well")
	flag.Parse()
	os.Exit(run(os.Stdout, *console, flag.Args(), os.Getenv("SKEIN_NO_SKIP") == "1"))
}

// run returns the exit code: 0 when all that had to run has passed.
func run(out io.Writer, console string, goTest []string, noSkip bool) int {
	start := time.Now()
	r := newReport(out)
	if err := runGo(r, goTest); err != nil {
		r.fail(err.Error())
	}
	if console != "" {
		runConsole(r, console)
	}
	return r.end(time.Since(start), noSkip)
}

// runGo feeds the report with the events of `go test -json`. The error is about
// go test itself; that a test failed is in the events.
func runGo(r *report, args []string) error {
	cmd := exec.Command("go", append([]string{"test", "-json"}, args...)...)
	cmd.Stderr = os.Stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start go test: %w", err)
	}
	lines := bufio.NewReader(stdout)
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) > 0 {
			var e event
			if json.Unmarshal(line, &e) == nil {
				r.event(e)
			} else {
				r.say("%s", line)
			}
		}
		if err != nil {
			break // the pipe ends with the program
		}
	}
	if err := cmd.Wait(); err != nil && len(r.failed) == 0 {
		return fmt.Errorf("go test: %w", err)
	}
	return nil
}

// runConsole runs `npm test` in the console's folder, if it can.
func runConsole(r *report, dir string) {
	if _, err := os.Stat(filepath.Join(dir, "package.json")); err != nil {
		r.skip("console", "needs "+filepath.Join(dir, "package.json"))
		return
	}
	if _, err := exec.LookPath("npm"); err != nil {
		r.skip("console", "needs npm (Node 20)")
		return
	}
	if _, err := os.Stat(filepath.Join(dir, "node_modules")); err != nil {
		r.skip("console", "needs the console's packages: run `make build`")
		return
	}
	start := time.Now()
	cmd := exec.Command("npm", "test", "--silent")
	cmd.Dir = dir
	text, err := cmd.CombinedOutput()
	if err != nil {
		r.say("%s", text)
		r.fail(fmt.Sprintf("console: npm test: %v", err))
		return
	}
	r.say("ok    console  %.1fs\n", time.Since(start).Seconds())
}
