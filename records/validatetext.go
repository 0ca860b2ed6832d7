package records

import (
	"reflect"
	"strconv"
	"strings"
)

// pointerBelow returns the JSON Pointer from value to what the validator
// calls ns, such as "Address.Lines[2]". It ends at a map, whose keys are the
// client's.
func pointerBelow(ns string, value reflect.Value) string {
	for value.Kind() == reflect.Pointer || value.Kind() == reflect.Interface {
		value = value.Elem()
	}
	if value.Kind() == reflect.Struct && value.Type().Name() != "" {
		ns = strings.TrimPrefix(ns, value.Type().Name()+".")
	}
	pointer := ""
	for ns != "" {
		for value.Kind() == reflect.Pointer || value.Kind() == reflect.Interface {
			value = value.Elem()
		}
		switch value.Kind() {
		case reflect.Slice, reflect.Array:
			digits, rest, _ := strings.Cut(strings.TrimPrefix(ns, "["), "]")
			i, err := strconv.Atoi(digits)
			if err != nil || i < 0 || i >= value.Len() {
				return pointer
			}
			pointer += "/" + digits
			value, ns = value.Index(i), rest
		case reflect.Struct:
			name, rest := ns, ""
			if i := strings.IndexAny(ns, ".["); i >= 0 {
				name, rest = ns[:i], ns[i:]
			}
			f, ok := value.Type().FieldByName(name)
			if !ok {
				return pointer
			}
			if spelled, ok := jsonName(f); ok && (!f.Anonymous || f.Tag.Get("json") != "") {
				pointer += "/" + escapePointer(spelled)
			}
			value, ns = value.FieldByIndex(f.Index), rest
		default:
			return pointer
		}
		ns = strings.TrimPrefix(ns, ".")
	}
	return pointer
}

// sentence says in English what the tag code demands of a value of that type.
// param is from the application.
func sentence(code, param string, kind reflect.Kind, t reflect.Type) string {
	switch code {
	case "min", "gte", "max", "lte", "len", "gt", "lt", "eq", "ne":
		return sizeSentence(code, param, kind, t)
	case "eqfield", "nefield", "gtfield", "gtefield", "ltfield", "ltefield":
		if param == "" {
			param = "another value"
		}
		return "Must be " + relations[strings.TrimSuffix(code, "field")] + " " + param + "."
	}
	if s := fixed[code]; s != "" {
		return s
	}
	if s := phrases[code]; s != "" && param != "" {
		return "Must " + s + " " + param + "."
	}
	switch {
	case code == "required", strings.HasPrefix(code, "required_"):
		return "A value is needed."
	case strings.HasPrefix(code, "excluded_"):
		return "Must be left out."
	case strings.HasPrefix(code, "uuid"):
		return "Must be a UUID."
	}
	return "Does not satisfy " + code + "."
}

// sizeSentence is sentence for what is a size, or a value, after the type.
func sizeSentence(code, param string, kind reflect.Kind, t reflect.Type) string {
	if t != nil && kind == reflect.Struct && param == "" { // a time
		switch code {
		case "gt", "gte":
			return "Must be in the future."
		case "lt", "lte":
			return "Must be in the past."
		}
	}
	switch code {
	case "min":
		code = "gte"
	case "max":
		code = "lte"
	}
	unit := ""
	switch kind {
	case reflect.String:
		unit = "characters"
	case reflect.Slice, reflect.Array, reflect.Map:
		unit = "items"
		if kind != reflect.Map && t != nil && t.Elem().Kind() == reflect.Uint8 {
			unit = "bytes"
		}
	}
	switch {
	case unit == "" || kind == reflect.String && (code == "eq" || code == "ne"):
		if code == "len" {
			code = "eq"
		}
		return "Must be " + relations[code] + " " + param + "."
	case code == "eq":
		code = "len"
	}
	if param == "1" {
		unit = strings.TrimSuffix(unit, "s")
	}
	return "Must have " + amounts[code] + " " + param + " " + unit + "."
}

// relations and amounts are how the tags that compare are put.
var (
	relations = map[string]string{
		"eq": "equal to", "ne": "other than", "gt": "greater than", "gte": "at least", "lt": "less than", "lte": "at most",
	}
	amounts = map[string]string{
		"len": "exactly", "ne": "not", "gt": "more than", "gte": "at least", "lt": "less than", "lte": "at most",
	}
)

// fixed are sentences without a parameter, by tag.
var fixed = map[string]string{
	"alpha":            "Must consist of letters.",
	"alphanum":         "Must consist of letters and digits.",
	"alphanumunicode":  "Must consist of letters and digits.",
	"alphaunicode":     "Must consist of letters.",
	"ascii":            "Must consist of ASCII characters.",
	"base64":           "Must be base64.",
	"base64url":        "Must be URL-safe base64.",
	"boolean":          "Must be true or false.",
	"cidr":             "Must be an IP network.",
	"credit_card":      "Must be the number of a credit card.",
	"e164":             "Must be a phone number such as +441632960123.",
	"email":            "Must be an e-mail address.",
	"fqdn":             "Must be a domain name.",
	"hexadecimal":      "Must be hexadecimal.",
	"hexcolor":         "Must be a color such as #00ff80.",
	"hostname":         "Must be a host name.",
	"hostname_rfc1123": "Must be a host name.",
	"html":             "Must contain HTML.",
	"http_url":         "Must be an HTTP URL.",
	"https_url":        "Must be an HTTPS URL.",
	"ip":               "Must be an IP address.",
	"ipv4":             "Must be an IPv4 address.",
	"ipv6":             "Must be an IPv6 address.",
	"isdefault":        "Must be left out.",
	"json":             "Must be JSON.",
	"latitude":         "Must be a latitude.",
	"longitude":        "Must be a longitude.",
	"lowercase":        "Must be in lower case.",
	"mac":              "Must be a MAC address.",
	"number":           "Must be a number.",
	"numeric":          "Must be a number.",
	"port":             "Must be a port.",
	"printascii":       "Must consist of printable ASCII characters.",
	"semver":           "Must be a semantic version.",
	"timezone":         "Must be the name of a time zone.",
	"ulid":             "Must be a ULID.",
	"unique":           "Must not contain anything twice.",
	"uppercase":        "Must be in upper case.",
	"uri":              "Must be a URI.",
	"url":              "Must be a URL.",
}

// phrases are sentences with a parameter, by tag, without "Must" and the
// parameter.
var phrases = map[string]string{
	"contains":       "contain",
	"containsany":    "contain one of the characters",
	"datetime":       "have the form",
	"endsnotwith":    "not end with",
	"endswith":       "end with",
	"eq_ignore_case": "be",
	"excludes":       "not contain",
	"excludesall":    "not contain any of the characters",
	"ne_ignore_case": "not be",
	"noneof":         "be none of:",
	"oneof":          "be one of:",
	"oneofci":        "be one of:",
	"startsnotwith":  "not start with",
	"startswith":     "start with",
}
