package event

import (
	"slices"
	"strings"
	"unicode/utf8"
)

// rule is a check of one text, with its description for the catalogue.
type rule struct {
	about string
	// wrong says what is wrong with s, or "" when nothing is.
	wrong func(s string) string
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

func wrongUnless(values ...string) func(string) string {
	message := "must be one of " + strings.Join(values, " ")
	return func(s string) string {
		if slices.Contains(values, s) {
			return ""
		}
		return message
	}
}

// The rules in use.
var (
	ruleName       = rule{"name: 1 to 64 letters, digits, - _ . and inner spaces", wrongName}
	ruleText       = rule{"text: one line, up to 256 bytes", wrongText(MaxText)}
	ruleID         = rule{"id: 24 characters of lower-case base32", wrongID}
	ruleVersion    = rule{"version: one line, up to 64 bytes", wrongText(64)}
	rulePlatform   = rule{"platform: 1 to 32 of letters, digits and . _ -", wrongWord(32, "._-")}
	ruleHistory    = rule{"history id: 1 to 64 letters, digits and -", wrongWord(64, "-")}
	ruleLabelKey   = rule{"label key: 1 to 63 of letters, digits and . _ / -", wrongWord(MaxLabelKey, "._/-")}
	ruleLabelValue = rule{"label value: one line, up to 128 bytes", wrongText(MaxLabelValue)}
	ruleScope      = rule{"viewer, operator or admin", wrongUnless(ScopeViewer, ScopeOperator, ScopeAdmin)}
	ruleRobotType  = rule{"lekiwi, xlerobot or unknown", wrongUnless(string(LeKiwi), string(XLeRobot), string(UnknownRobot))}
	ruleAdmission  = rule{"genesis, enrolment or token", wrongUnless(string(ByGenesis), string(ByEnrolment), string(ByToken))}
)
