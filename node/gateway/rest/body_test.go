package rest

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"skein/consensus/event"
)

// What the decoder of JSON would take for something else than was sent is
// refused, with the place, and nothing is decided.
func TestOnlyWhatWasSentIsDecided(t *testing.T) {
	f, d := newDeepFace(t)
	before := d.store.Cursor()
	robot := "robot/" + string(d.Look().Robots[0].ID)
	in := func(fields string) string { return `{"drafts":[{` + fields + `}]}` }
	labels := `"stream":"` + robot + `","type":"robot.labels_changed",`
	group := `"stream":"group/a","type":"group.created",`
	for name, c := range map[string]struct{ path, body, at string }{
		"half a pair in a label":   {"events", in(labels + `"data":{"set":{"a":"\ud800"}}`), "drafts[0].data.set.a"},
		"half a pair in a name":    {"events", in(labels + `"data":{"set":{"a\udc00":"x"}}`), "drafts[0].data.set"},
		"half a pair in a stream":  {"events", in(`"stream":"group/\uDBFF","type":"group.created","data":{}`), "drafts[0].stream"},
		"half a pair in a cause":   {"events", in(group + `"data":{},"cause":"\ud83e\u0041"`), "drafts[0].cause"},
		"data twice":               {"events", in(group + `"data":{"description":"x"},"data":{"description":"y"}`), "drafts[0].data"},
		"type twice":               {"events", in(`"type":"group.deleted",` + group + `"data":{}`), "drafts[0].type"},
		"a field of data twice":    {"events", in(group + `"data":{"description":"x","description":"y"}`), "drafts[0].data.description"},
		"a label twice":            {"events", in(labels + `"data":{"set":{"a":"x","\u0061":"y"}}`), "drafts[0].data.set.a"},
		"drafts twice":             {"events", in(group + `"data":{}`)[:len(in(group+`"data":{}`))-1] + `,"drafts":[]}`, "drafts"},
		"STREAM":                   {"events", in(`"STREAM":"group/a","type":"group.created","data":{}`), "drafts[0].STREAM"},
		"Type":                     {"events", in(`"stream":"group/a","Type":"group.created","data":{}`), "drafts[0].Type"},
		"DATA":                     {"events", in(`"stream":"group/a","type":"group.created","DATA":{}`), "drafts[0].DATA"},
		"data and Data":            {"events", in(group + `"data":{},"Data":{"description":"y"}`), "drafts[0].Data"},
		"a long s":                 {"events", in(group + `"data":{},"ſtream":"group/b"`), "drafts[0].ſtream"},
		"Expect":                   {"events", in(group + `"data":{},"Expect":0`), "drafts[0].Expect"},
		"name and NAME":            {"groups", `{"name":"a","NAME":"b"}`, "NAME"},
		"name twice":               {"groups", `{"name":"a","name":"b"}`, "name"},
		"half a pair in a group":   {"groups", `{"name":"\ud800"}`, "name"},
		"Robot":                    {"groups/a/robots", `{"Robot":"goose"}`, "Robot"},
		"a reason twice":           {"robots/goose/activate", `{"reason":"a","reason":"b"}`, "reason"},
		"To":                       {"raft/transfer", `{"To":"x"}`, "To"},
		"a capability half a pair": {"robots/goose/provision", `{"capabilities":["arm","\udfff"]}`, "capabilities[1]"},
		"very deep data":           {"events", in(group + `"data":` + strings.Repeat("[", 50) + strings.Repeat("]", 50)), "drafts[0].data" + strings.Repeat("[0]", 29)},
		"a number too large":       {"events", in(group + `"data":{},"schema":18446744073709551616`), "drafts.schema"},
	} {
		t.Run(name, func(t *testing.T) {
			r := f.do("ada", "POST", "/api/v1/"+c.path, c.body)
			if p := r.problem(t, 422, "invalid"); c.at != "drafts.schema" && p.Path != c.at || strings.Contains(p.Detail, "Go ") {
				t.Errorf("path %q, want %q: %+v", p.Path, c.at, p)
			}
		})
	}
	if now := d.store.Cursor(); now != before {
		t.Fatalf("something was decided: %+v, before %+v", now, before)
	}
	// What looks like it, and is not, goes on working.
	for _, body := range []string{
		in(labels + `"data":{"set":{"a":"x","A":"y","robot":"\ud83e\udd16","mark":"\ufffd"}}`),
		in(`"type":"group.created", "data" : {"description":"\\ud800"}, "cause":"why","expect":0,"stream":"group/a"`),
	} {
		if r := f.do("ada", "POST", "/api/v1/events", body); r.StatusCode != 200 {
			t.Errorf("%s: %s %s", body, r.Status, r.body)
		}
	}
	if got := d.Look().Robots[0].Labels; got["a"] != "x" || got["A"] != "y" || got["robot"] != "🤖" || got["mark"] != "\ufffd" {
		t.Errorf("labels %q", got)
	}
	f.do("ada", "POST", "/api/v1/login", `{"code":"x","CODE":"y"}`).problem(t, 422, "invalid")
	f.do("ada", "POST", "/api/v1/tokens", `{"ttlSeconds":60,"TTLSeconds":604800}`).problem(t, 422, "invalid")
}

// What is announced to be too long is refused before a byte of it comes, and the
// answer says what would not be.
func TestAnAnnouncedBody(t *testing.T) {
	f := newFace(t)
	for path, most := range map[string]int{"/api/v1/events": event.MaxBatchBytes + 256<<10, "/api/v1/groups": smallBodyBytes} {
		for _, length := range []int{most + 1, 1 << 30} {
			conn, err := net.Dial("tcp", strings.TrimPrefix(f.url, "http://"))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			began := time.Now()
			fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n", path, f.token("ada"), length)
			p := answerOn(t, conn).problem(t, 413, "too_large")
			if took := time.Since(began); took > readTimeout/2 {
				t.Errorf("%s, %d bytes: the answer took %v", path, length, took)
			}
			if bound := fmt.Sprint(most); !strings.Contains(p.Detail, bound) || !strings.Contains(p.Next, bound) {
				t.Errorf("%+v does not say %s", p, bound)
			}
		}
	}
	// At the bound it is read.
	body := `{"name":"a","description":""}`
	body = strings.Replace(body, `""`, `"`+strings.Repeat("x", 4000)+`"`+strings.Repeat(" ", smallBodyBytes-len(body)-4000), 1)
	if r := f.do("omar", "POST", "/api/v1/groups", body); len(body) != smallBodyBytes || r.StatusCode != 200 {
		t.Errorf("%d bytes: %s %s", len(body), r.Status, r.body)
	}
}

// answerOn reads the answer that comes on a connection.
func answerOn(t *testing.T, conn net.Conn) reply {
	t.Helper()
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return reply{resp, text}
}

// A body that does not come is waited for so long, and one that breaks off is
// the request's fault.
func TestABodyThatDoesNotCome(t *testing.T) {
	f := newFace(t)
	for name, c := range map[string]struct {
		rest   string
		status int
		code   string
	}{
		"nothing":    {"Content-Length: 100\r\n\r\n{", 408, "timeout"},
		"no chunk":   {"Transfer-Encoding: chunked\r\n\r\nhello\r\n", 400, "invalid"},
		"broken off": {"Content-Length: 100\r\n\r\n{", 400, "invalid"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conn, err := net.Dial("tcp", strings.TrimPrefix(f.url, "http://"))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			fmt.Fprintf(conn, "POST /api/v1/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n%s", c.rest)
			if name == "broken off" {
				if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
					t.Fatal(err)
				}
			}
			if p := answerOn(t, conn).problem(t, c.status, c.code); strings.Contains(p.Next, "openapi") {
				t.Errorf("%+v does not say what to do", p)
			}
		})
	}
}

// A backup is of the present; who asks for another one is told so.
func TestABackupOfAMoment(t *testing.T) {
	f := newFace(t)
	for _, query := range []string{"at=5", "read=local", "at", "=", "&"} {
		p := f.do("ada", "GET", "/api/v1/backup?"+query, "").problem(t, 422, "invalid")
		if name, _, _ := strings.Cut(query, "="); p.Path != "query."+name {
			t.Errorf("%q: %+v", query, p)
		}
	}
	f.do("anna", "GET", "/api/v1/backup?at=5", "").problem(t, 403, "not_allowed")
}
