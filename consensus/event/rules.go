package event

import (
	"slices"
	"strings"
	"unicode/utf8"
)

// rule is a check of one text, with its description for the catalogue.
type rule struct {
	about string
	// wrong says what is wrong with s, or "" when nothing is. Every rule refuses
	// control characters and broken UTF-8.
	wrong func(s string) string
	// values are the only ones allowed; nil when there are too many to name.
	values []string
}

// text is b as a string; a value that the rule names costs no memory.
func (r *rule) text(b []byte) string {
	for _, v := range r.values {
		if string(b) == v {
			return v
		}
	}
	return string(b)
}

// letters are the blocks beyond ASCII whose characters may stand in a name. The
// table is fixed here because unicode.IsLetter changes with the Go version, and
// replicas of different builds must agree on what is a name.
var letters = [...][2]rune{
	{0x00C0, 0x00D6}, {0x00D8, 0x00F6}, {0x00F8, 0x024F}, // Latin
	{0x0388, 0x03FF}, {0x0400, 0x0481}, {0x048A, 0x052F}, // Greek, Cyrillic
	{0x05D0, 0x05EA}, {0x0620, 0x064A}, {0x0904, 0x0939}, // Hebrew, Arabic, Devanagari
	{0x3041, 0x3096}, {0x30A1, 0x30FC}, {0x4E00, 0x9FA5}, // Kana, Han
	{0xAC00, 0xD7A3}, // Hangul
}

func isNameRune(r rune) bool {
	switch {
	case 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z', '0' <= r && r <= '9':
		return true
	case r == '-', r == '_', r == '.', r == ' ':
		return true
	}
	for _, block := range letters {
		if block[0] <= r && r <= block[1] {
			return true
		}
	}
	return false
}

// wrongName checks names: of robots, persons, groups and fleets.
func wrongName(s string) string {
	if n := utf8.RuneCountInString(s); n == 0 || n > MaxName {
		return "must have 1 to 64 characters"
	}
	if s[0] == ' ' || s[len(s)-1] == ' ' {
		return "must not start or end with a space"
	}
	for _, r := range s {
		if !isNameRune(r) {
			return "may have only letters, digits, - _ . and spaces"
		}
	}
	return ""
}

// wrongText makes a check of free text for people: no control characters and no
// line separators, so that it is one line wherever it is shown.
func wrongText(most int) func(string) string {
	return func(s string) string {
		if len(s) > most {
			return "is too long"
		}
		if plain(s) {
			return ""
		}
		if !utf8.ValidString(s) {
			return "is not valid UTF-8"
		}
		for _, r := range s {
			if r < 0x20 || 0x7F <= r && r <= 0x9F || r == 0x2028 || r == 0x2029 {
				return "must be one line without control characters"
			}
		}
		return ""
	}
}

// wrongWord makes a check of short identifiers in ASCII.
func wrongWord(most int, extra string) func(string) string {
	return func(s string) string {
		if len(s) == 0 || len(s) > most {
			return "is empty or too long"
		}
		for i := range len(s) {
			c := s[i]
			ok := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
			for j := 0; !ok && j < len(extra); j++ {
				ok = c == extra[j]
			}
			if !ok {
				return "may have only letters, digits and " + extra
			}
		}
		return ""
	}
}

// wrongID checks what ident.IDOf and ident.JoinToken.Hash produce. Every text
// of this form is one of 15 bytes in base32.
func wrongID(s string) string {
	if len(s) != 24 {
		return "must have 24 characters"
	}
	for i := range len(s) {
		if c := s[i]; (c < 'a' || c > 'z') && (c < '2' || c > '7') {
			return "must be lower-case base32 (a-z, 2-7)"
		}
	}
	return ""
}

// oneOf is the rule that only those values are allowed.
func oneOf(about string, values ...string) rule {
	message := "must be one of " + strings.Join(values, " ")
	return rule{about: about, values: values, wrong: func(s string) string {
		if slices.Contains(values, s) {
			return ""
		}
		return message
	}}
}

// wrongHash checks what history.Hash.String gives.
func wrongHash(s string) string {
	if len(s) != 64 {
		return "must have 64 characters"
	}
	for i := range len(s) {
		if c := s[i]; (c < 'a' || c > 'f') && !isDigit(c) {
			return "must be lower-case hex"
		}
	}
	return ""
}

// notEmpty adds to a check that there is something.
func notEmpty(wrong func(string) string) func(string) string {
	return func(s string) string {
		if s == "" {
			return "must not be empty"
		}
		return wrong(s)
	}
}

// The rules in use.
var (
	ruleName       = rule{about: "name: 1 to 64 letters, digits, - _ . and inner spaces", wrong: wrongName}
	ruleText       = rule{about: "text: one line, up to 256 bytes", wrong: wrongText(MaxText)}
	ruleID         = rule{about: "id: 24 characters of lower-case base32", wrong: wrongID}
	ruleVersion    = rule{about: "version: one line, up to 64 bytes", wrong: wrongText(64)}
	rulePlatform   = rule{about: "platform: 1 to 32 of letters, digits and . _ -", wrong: wrongWord(32, "._-")}
	ruleHistory    = rule{about: "history id: 1 to 64 letters, digits and -", wrong: wrongWord(64, "-")}
	ruleLabelKey   = rule{about: "label key: 1 to 63 of letters, digits and . _ / -", wrong: wrongWord(MaxLabelKey, "._/-")}
	ruleLabelValue = rule{about: "label value: one line, up to 128 bytes", wrong: wrongText(MaxLabelValue)}
	ruleScope      = oneOf("viewer, operator or admin", ScopeViewer, ScopeOperator, ScopeAdmin)
	ruleRobotType  = oneOf("lekiwi, xlerobot or unknown", string(LeKiwi), string(XLeRobot), string(UnknownRobot))
	ruleAdmission  = oneOf("genesis, enrolment or token", string(ByGenesis), string(ByEnrolment), string(ByToken))
	ruleLine       = rule{about: "text: one line, 1 to 256 bytes", wrong: notEmpty(wrongText(MaxText))}
	ruleBuild      = rule{about: "version: one line, 1 to 64 bytes", wrong: notEmpty(wrongText(64))}
	ruleWord       = rule{about: "word: 1 to 64 of letters, digits and . _ -", wrong: wrongWord(64, "._-")}
	ruleCapability = rule{about: "capability: 1 to 32 of letters, digits and . _ -", wrong: wrongWord(32, "._-")}
	ruleHash       = rule{about: "hash: 64 characters of lower-case hex", wrong: wrongHash}
	ruleHostname   = rule{about: "host name: 1 to 253 of letters, digits and . -", wrong: wrongWord(253, ".-")}
	ruleFailure    = oneOf("connection, deployment, hardware, software or unknown", string(FailedConnection), string(FailedDeployment), string(FailedHardware), string(FailedSoftware), string(FailedUnknown))
	ruleDeployment = oneOf("full, delta or rollback", string(DeployFull), string(DeployDelta), string(DeployRollback))
)
