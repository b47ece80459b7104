package gateway

import (
	"fmt"
	"io"
	"net/http"

	"github.com/VictoriaMetrics/metrics"

	"skein/node/gateway/view"
)

// metrics answers with this node's metrics and those of its process.
func (g *Gateway) metrics(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	writeAsked(w, g.cfg.Asked())
	g.cfg.Metrics.WritePrometheus(w)
	metrics.WriteProcessMetrics(w)
}

// writeAsked writes what the node was asked. The library would write HELP for
// all nodes of a process or for none, and without a text; so it is done here.
func writeAsked(w io.Writer, a view.Asked) {
	counter := func(name, help string) {
		fmt.Fprintf(w, "# HELP %s %s\n# TYPE %s counter\n", name, help, name)
	}
	counter("skein_log_queries_total", "Questions for events of the log.")
	fmt.Fprintln(w, "skein_log_queries_total", a.Log)
	counter("skein_log_queries_scanned_total", "Questions for events that read a segment of the log through, because its index was missing or damaged.")
	fmt.Fprintln(w, "skein_log_queries_scanned_total", a.Scanned)
	counter("skein_past_queries_total", "Questions about a past moment, which read the log after a checkpoint.")
	fmt.Fprintln(w, "skein_past_queries_total", a.Past)
	counter("skein_view_queries_total", "Looks at the present, answered from read models without the log.")
	for _, v := range a.Views {
		fmt.Fprintf(w, "skein_view_queries_total{view=%q} %d\n", v.View, v.Queries)
	}
	counter("skein_view_rebuilds_total", "Questions about the present for which a kept list was out of date and made anew.")
	for _, v := range a.Views {
		if v.Kept {
			fmt.Fprintf(w, "skein_view_rebuilds_total{view=%q} %d\n", v.View, v.Rebuilds)
		}
	}
}
