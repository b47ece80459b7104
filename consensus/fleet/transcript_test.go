package fleet_test

import (
	"encoding/base64"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"skein/consensus/event"
	"skein/consensus/fleet"
	"skein/consensus/fleet/fleettest"
	"skein/mesh/ident"
)

var update = flag.Bool("update", false, "rewrite the transcripts in testdata")

// TestTranscripts replays the stories in testdata. Every block is a command,
// "----" and what it gave. Run with -update to rewrite what was given, and read
// the difference: these files say what the fleet's rules are.
//
//	batch ACTOR [from=NODE/BOOT/N]   one draft a line: TYPE SUBJECT FIELD=VALUE… [expect=N]
//	clock DURATION                   moves the leader's clock
//	show WHAT                        fleet nodes robots tokens enrolments persons groups log
//	seen NODE/BOOT/N                 what is remembered of a proposal
//	reload                           goes on with the state encoded and decoded
//
// Actors: genesis, leader, node:n1, recovery:n1, or a person's name. n0 … are
// nodes, e0 … enrolment keys, t0 … join tokens; they stand for ids and for public
// keys. schema=N chooses a schema, sign=n1 signs a seal. A story that begins with
// "# Level 2" is not for older builds.
func TestTranscripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no transcripts", err)
	}
	for _, path := range files {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txt"), func(t *testing.T) {
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if event.Level < 2 && strings.HasPrefix(string(text), "# Level 2") {
				return
			}
			got := newTeller(t).tell(string(text))
			if *update {
				if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if got != string(text) {
				t.Errorf("%s differs from what happened:\n%s", path, firstDifference(string(text), got))
			}
		})
	}
}

func firstDifference(want, got string) string {
	w, g := strings.Split(want, "\n"), strings.Split(got, "\n")
	for i := range g {
		if i >= len(w) || w[i] != g[i] {
			return fmt.Sprintf("line %d\nhave: %s\nfile: %s", i+1, g[i], strings.Join(w[min(i, len(w)):min(i+1, len(w))], ""))
		}
	}
	return "the file has more"
}

// teller runs one transcript. A second state is fed with the events alone and
// must stay equal.
type teller struct {
	t             *testing.T
	state, shadow *fleet.State
	now           time.Time
	names         *strings.Replacer // ids and keys to short names
	ids, keys     map[string]string // short names to ids and keys
	signers       map[string]ident.Key
}

func newTeller(t *testing.T) *teller {
	w := &teller{t: t, state: fleet.New(), shadow: fleet.New(), now: time.Date(2026, 1, 2, 3, 0, 0, 0, time.UTC),
		ids: map[string]string{}, keys: map[string]string{}, signers: map[string]ident.Key{}}
	var pairs []string
	name := func(short string, key ident.Key) {
		w.ids[short] = string(key.ID())
		w.signers[short] = key
		w.keys[short] = base64.StdEncoding.EncodeToString(key.Public())
		pairs = append(pairs, w.ids[short], short, w.keys[short], "key("+short+")", key.ID().Short(), short)
	}
	for i := range 9 {
		name(fmt.Sprint("n", i), fleettest.Key(i))
		name(fmt.Sprint("e", i), fleettest.Key(100+i))
		hash := fleettest.Token(i)
		w.ids[fmt.Sprint("t", i)] = hash
		pairs = append(pairs, hash, fmt.Sprint("t", i))
	}
	name("ada", fleettest.Key(50))
	name("bob", fleettest.Key(51))
	name("root", fleettest.Key(99))
	w.names = strings.NewReplacer(pairs...)
	return w
}

// tell runs every command of text and gives the text as it should be.
func (w *teller) tell(text string) string {
	var out strings.Builder
	for i, block := range strings.Split(strings.TrimRight(text, "\n"), "\n\n") {
		if i > 0 {
			out.WriteString("\n")
		}
		if strings.HasPrefix(block, "#") {
			out.WriteString(block + "\n")
			continue
		}
		command, _, _ := strings.Cut(block+"\n", "----\n")
		out.WriteString(command + "----\n" + w.names.Replace(w.run(strings.Split(strings.TrimSpace(command), "\n"))))
	}
	return out.String()
}

func (w *teller) run(lines []string) string {
	words := strings.Fields(lines[0])
	switch words[0] {
	case "batch":
		return w.batch(words[1:], lines[1:])
	case "clock":
		d, err := time.ParseDuration(words[1])
		if err != nil {
			w.t.Fatal(err)
		}
		w.now = w.now.Add(d)
		return w.now.Format(time.TimeOnly) + "\n"
	case "show":
		return w.show(words[1])
	case "seen":
		first, last, ok := w.state.Seen(w.producer(words[1]))
		return fmt.Sprintln(ok, first, last)
	case "reload":
		s, err := fleet.Unmarshal(w.state.Marshal())
		if err != nil {
			w.t.Fatal(err)
		}
		w.state = s
		return fmt.Sprintln("at event", s.Seq())
	}
	w.t.Fatalf("unknown command %q", lines[0])
	return ""
}

func (w *teller) producer(text string) event.Producer {
	part := strings.Split(text, "/")
	boot, err1 := strconv.ParseUint(part[1], 10, 64)
	n, err2 := strconv.ParseUint(part[2], 10, 64)
	if err1 != nil || err2 != nil {
		w.t.Fatalf("producer %q", text)
	}
	return event.Producer{Node: ident.NodeID(w.ids[part[0]]), Boot: boot, N: n}
}

func (w *teller) actor(name string) event.Actor {
	kind, id, _ := strings.Cut(name, ":")
	switch kind {
	case "genesis", "leader":
		return event.Actor{Kind: event.Kind(kind), ID: w.ids["n0"]}
	case "recovery":
		return event.Actor{Kind: event.KindRecovery, ID: w.ids[id]}
	case "node":
		return fleettest.Itself(ident.NodeID(w.ids[id]))
	}
	return fleettest.Admin(name)
}

func (w *teller) batch(head, lines []string) string {
	b := event.Batch{Actor: w.actor(head[0])}
	if len(head) > 1 {
		b.Producer = w.producer(strings.TrimPrefix(head[1], "from="))
	}
	for _, line := range lines {
		b.Drafts = append(b.Drafts, w.draft(strings.Fields(line)))
	}
	before := w.state.Hash()
	v, err := w.state.Check(b, w.now)
	if w.state.Hash() != before {
		w.t.Fatalf("checking changed the state: %v", lines)
	}
	if fault, ok := event.FaultOf(err); ok {
		return fmt.Sprintf("refused: %s\n", strings.TrimSpace(string(fault.Code)+" "+string(fault.Reason))) + "  " + fault.Error() + "\n"
	}
	if v.Repeated {
		return fmt.Sprintf("repeated: events %d to %d\n", v.First, v.Last)
	}
	for _, e := range v.Events {
		for _, s := range []*fleet.State{w.state, w.shadow} {
			if err := s.Apply(e); err != nil {
				w.t.Fatalf("an accepted event does not apply: %v", err)
			}
		}
	}
	if w.state.Hash() != w.shadow.Hash() {
		w.t.Fatal("the states differ")
	}
	return fmt.Sprintf("events %d to %d\n", v.First, v.Last)
}

func (w *teller) draft(words []string) event.Draft {
	d := event.Draft{Type: words[0], Schema: 1}
	if slices.Contains(words, "schema=2") {
		d.Schema = 2
	}
	var info event.TypeInfo
	for _, known := range event.Types() {
		if known.Type == d.Type && known.Schema == d.Schema {
			info = known
		}
	}
	d.Stream = info.Stream
	subject := strings.ReplaceAll(words[1], "_", " ")
	if id, ok := w.ids[subject]; ok && !strings.HasSuffix(info.Stream, "<name>") {
		subject = id
	}
	if family, _, ok := strings.Cut(info.Stream, "/"); ok {
		d.Stream = family + "/" + subject
	}
	data := map[string]any{}
	for _, word := range words[2:] {
		name, value, _ := strings.Cut(word, "=")
		if name == "expect" {
			n, err := strconv.ParseUint(value, 10, 64)
			if err != nil {
				w.t.Fatal(err)
			}
			d.Expect = &n
			continue
		}
		if name == "schema" {
			continue
		}
		if name == "sign" {
			seq, err := strconv.ParseUint(string(data["seq"].(json.RawMessage)), 10, 64)
			if err != nil {
				w.t.Fatal(err)
			}
			data["signature"] = event.Seal(w.signers[value], w.state.History(), seq, data["hash"].(string)).Signature
			continue
		}
		data[name] = w.value(info, name, strings.ReplaceAll(value, "_", " "))
	}
	text, err := json.Marshal(data)
	if err != nil {
		w.t.Fatal(err)
	}
	d.Data = text
	return d
}

// value turns the text of a field into what its kind wants.
func (w *teller) value(info event.TypeInfo, name, text string) any {
	if name == "publicKey" || name == "root" {
		return w.keys[text]
	}
	if name == "hash" {
		return strings.Repeat("0", 64-len(text)) + text
	}
	for _, f := range info.Fields {
		switch {
		case f.Name != name:
		case f.Kind == "array":
			return strings.Split(text, ",")
		case f.Kind == "integer", f.Kind == "boolean":
			return json.RawMessage(text)
		case f.Kind == "object":
			m := map[string]string{}
			for pair := range strings.SplitSeq(text, ",") {
				k, v, _ := strings.Cut(pair, ":")
				m[k] = v
			}
			return m
		}
	}
	if id, ok := w.ids[text]; ok && name != "name" {
		return id
	}
	return text
}

func (w *teller) show(what string) string {
	switch what {
	case "fleet":
		f, _ := w.state.Fleet()
		return list([]fleet.Fleet{f})
	case "nodes":
		return list(w.state.Nodes())
	case "robots":
		return list(w.state.Robots())
	case "tokens":
		var tokens []fleet.Token
		for i := range 9 {
			if token, ok := w.state.Token(fleettest.Token(i)); ok {
				tokens = append(tokens, token)
			}
		}
		return list(tokens)
	case "enrolments":
		return list(w.state.Enrolments())
	case "persons":
		return list(w.state.Persons())
	case "groups":
		return list(w.state.Groups())
	case "log":
		seal, _ := w.state.Seal()
		return fmt.Sprintf("history %s, ceiling %d, %d recoveries, sealed to %d by %s of %s\n", w.state.History(), w.state.Ceiling(),
			w.state.Recoveries(), seal.Seq, seal.By, seal.History)
	case "voters":
		return list(w.state.Voters())
	}
	w.t.Fatalf("show %q", what)
	return ""
}

// list writes one value a line.
func list[V any](values []V) string {
	var b strings.Builder
	for _, v := range values {
		text, err := json.Marshal(v)
		if err != nil {
			panic(err)
		}
		line := strings.NewReplacer(`"`, "", "2026-01-02T", "", ",", " ", "{", "", "}", "").Replace(string(text))
		b.WriteString(line + "\n")
	}
	if b.Len() == 0 {
		return "none\n"
	}
	return b.String()
}
