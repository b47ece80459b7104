package trial

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"skein/sim/rig"
)

const (
	// pageTurns bounds every wait for something to appear on the page.
	pageTurns = 30 * time.Second
	// devForms bounds the start of the fleet, the build of its binary excluded.
	devForms = 20 * time.Second
)

// TestConsoleInABrowser follows an operator's evening in headless Chromium,
// against a fleet that `skein dev` runs.
func TestConsoleInABrowser(t *testing.T) {
	browser := chromium(t)
	dev := startDev(t, rig.Skein(t), 5, 3)
	p := open(t, browser, dev.loginLink)

	p.await("five robots are listed and online", `document.querySelectorAll('[data-testid=fleet-row][data-status=online]').length === 5`)
	p.await("the leader is named", `/robot-\d/.test(document.querySelector('[data-testid=leader]')?.textContent ?? '')`)
	p.await("one voter may be lost", `/1/.test(document.querySelector('[data-testid=can-lose]')?.textContent ?? '')`)
	p.await("telemetry is real: this machine uses memory", `/\d/.test(document.querySelector('[data-testid=fleet-row]')?.textContent.replace(/robot-\d/, '') ?? '')`)
	p.await("the log is shown", `document.querySelectorAll('[data-testid=event-row][data-type="robot.registered"]').length >= 5`)

	dev.command("kill", "robot-5")
	p.await("a killed robot turns offline", row("robot-5", "offline"))
	p.await("the others stay", `document.querySelectorAll('[data-testid=fleet-row][data-status=online]').length === 4`)

	dev.command("start", "robot-5")
	p.await("it is back", row("robot-5", "online"))

	dev.command("add")
	p.await("a new robot appears", row("robot-6", "online"))

	p.await("the page is with the first robot", `(document.querySelector('[data-testid=connected-node]')?.textContent ?? '').includes('robot-1')`)
	p.watchFor("stale-banner")
	dev.command("kill", "robot-1")
	p.await("the banner showed when the page's robot died", `window.seen['stale-banner'] === true`)
	p.await("the page has moved to another robot", `/robot-[2-6]/.test(document.querySelector('[data-testid=connected-node]')?.textContent ?? '')`)
	p.await("the banner is gone", `document.querySelector('[data-testid=stale-banner]') === null`)
	p.await("the dead robot is shown as offline", row("robot-1", "offline"))
	p.await("somebody else leads or led already", `/robot-[2-3]/.test(document.querySelector('[data-testid=leader]')?.textContent ?? '')`)
}

// row is true when the page shows the robot with the status.
func row(name, status string) string {
	return fmt.Sprintf(`document.querySelector('[data-testid=fleet-row][data-name=%q]')?.dataset.status === %q`, name, status)
}

// chromium is the path of the browser.
func chromium(t *testing.T) string {
	t.Helper()
	path, err := exec.LookPath("chromium")
	if err != nil {
		if os.Getenv("SKEIN_NO_SKIP") == "1" {
			t.Fatal("needs chromium (Debian package chromium)")
		}
		t.Skip("needs chromium (Debian package chromium)")
	}
	return path
}

// devFleet is a running `skein dev`.
type devFleet struct {
	t         *testing.T
	skein     string
	data      string
	loginLink string
}

var loginLink = regexp.MustCompile(`http://\S+#login=\S+`)

func startDev(t *testing.T, skein string, robots, voters int) *devFleet {
	t.Helper()
	d := &devFleet{t: t, skein: skein, data: t.TempDir()}
	cmd := exec.Command(skein, "dev", "--robots", strconv.Itoa(robots), "--voters", strconv.Itoa(voters),
		"--http", "127.0.0.1:"+strconv.Itoa(freePorts(t, robots+1)), "--data", d.data)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var trouble strings.Builder
	cmd.Stderr = &trouble
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil {
			t.Errorf("skein dev ended with %v: %s", err, trouble.String())
		}
		if t.Failed() {
			log, _ := os.ReadFile(d.data + "/dev.log")
			t.Logf("dev.log:\n%s", log)
		}
	})
	line := make(chan string, 1)
	go func() {
		scanner := bufio.NewScanner(out)
		for scanner.Scan() {
			if link := loginLink.FindString(scanner.Text()); link != "" {
				line <- link
			}
		}
	}()
	select {
	case d.loginLink = <-line:
	case <-time.After(devForms):
		t.Fatalf("skein dev printed no login link: %s", trouble.String())
	}
	return d
}

// freePorts is the first of n ports in a row that are free now.
func freePorts(t *testing.T, n int) int {
	t.Helper()
	for first := 20000 + os.Getpid()%10000; first < 60000; first += n {
		free := true
		for port := first; port < first+n && free; port++ {
			l, err := net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(port))
			if free = err == nil; free {
				l.Close()
			}
		}
		if free {
			return first
		}
	}
	t.Fatal("no free ports")
	return 0
}

// command is `skein dev ACTION` to the fleet.
func (d *devFleet) command(args ...string) {
	d.t.Helper()
	out, err := exec.Command(d.skein, append(append([]string{"dev"}, args...), "--data", d.data)...).CombinedOutput()
	if err != nil {
		d.t.Fatalf("skein dev %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// page is an open page of the console.
type page struct {
	t   *testing.T
	ctx context.Context
}

func open(t *testing.T, browser, url string) *page {
	t.Helper()
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(browser), chromedp.NoSandbox, chromedp.DisableGPU, chromedp.WindowSize(1280, 900),
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-background-networking", true),
		chromedp.Flag("disable-component-update", true), chromedp.Flag("disable-sync", true))
	allocator, cancelAllocator := chromedp.NewExecAllocator(t.Context(), options...)
	ctx, cancel := chromedp.NewContext(allocator)
	t.Cleanup(func() { cancel(); cancelAllocator() })
	p := &page{t, ctx}
	if _, err := chromedp.Run(ctx, chromedp.Navigate(url)); err != nil {
		t.Fatalf("open console: %v", err)
	}
	return p
}

// await waits until an expression is true on the page; a failure shows the page.
func (p *page) await(what, expression string) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, pageTurns)
	defer cancel()
	ok, err := chromedp.Run(ctx, chromedp.Poll[bool](expression, chromedp.WithPollingInterval(50*time.Millisecond), chromedp.WithPollingTimeout(pageTurns)))
	if err == nil && ok {
		return
	}
	text, textErr := chromedp.Run(p.ctx, chromedp.Evaluate[string](`document.body.innerText`))
	p.t.Fatalf("not on the page after %s: %s (%v). The page (%v):\n%s", pageTurns, what, err, textErr, text)
}

// watchFor notes on the page itself that an element was there, however briefly.
func (p *page) watchFor(testID string) {
	p.t.Helper()
	script := fmt.Sprintf(`window.seen = {}; new MutationObserver(() => {
		if (document.querySelector('[data-testid=%[1]s]')) window.seen['%[1]s'] = true;
	}).observe(document.body, {childList: true, subtree: true})`, testID)
	if _, err := chromedp.Run(p.ctx, chromedp.Evaluate[bool](script+"; true")); err != nil {
		p.t.Fatal(err)
	}
}
