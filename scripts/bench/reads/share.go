package main

import (
	"bufio"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"

	"skein/scripts/benchjson"
)

// share prints which share of all questions the node says it has answered
// without reading through its history, where the goal is 90 %; and which with
// those about the past counted as read through, which they are from a checkpoint.
func (n *node) share() error {
	counted, err := n.metrics()
	if err != nil {
		return err
	}
	present := counted["skein_log_queries_total"] + counted["skein_view_queries_total"]
	scanned, past := counted["skein_log_queries_scanned_total"], counted["skein_past_queries_total"]
	if present == 0 || past == 0 {
		return fmt.Errorf("the node's metrics know of %v questions, and %v about the past", present, past)
	}
	name := fmt.Sprintf("reads/%d robots/%d events/answered without scanning history", robots, n.last)
	for _, r := range []benchjson.Result{
		{Bench: name, Unit: "%", Ours: 100 * (1 - scanned/present), Peer: "goal", Theirs: 90},
		{Bench: name + ", of all with the past", Unit: "%", Ours: 100 * (1 - (scanned+past)/(present+past)), Peer: "goal", Theirs: 90},
	} {
		if err := benchjson.Print(os.Stdout, r); err != nil {
			return err
		}
	}
	return nil
}

// metrics are those of the node's /metrics, summed over their labels.
func (n *node) metrics() (map[string]float64, error) {
	resp, err := http.Get("http://" + n.address + "/metrics")
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	sums := map[string]float64{}
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		if strings.HasPrefix(lines.Text(), "#") {
			continue
		}
		at := strings.LastIndexByte(lines.Text(), ' ') // labels may have spaces
		name, _, _ := strings.Cut(lines.Text()[:max(at, 0)], "{")
		v, err := strconv.ParseFloat(lines.Text()[at+1:], 64)
		if err != nil {
			return nil, fmt.Errorf("read metrics: %q: %w", lines.Text(), err)
		}
		sums[name] += v
	}
	return sums, lines.Err()
}
