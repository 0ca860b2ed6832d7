package records

import (
	"slices"

	"github.com/bedplate/bedplate/internal/sqltoken"
)

// call returns what is known of the result of a function; over is what stands
// behind its arguments.
func (q *viewQuery) call(name string, args, over []sqltoken.Token) value {
	if name == "cast" {
		return q.cast(args, over)
	}
	if name == "count" && aggregation(over) {
		return value{typ: integerType, notNull: true}
	}
	if len(over) > 0 {
		return value{}
	}
	if name == "exists" {
		return value{typ: integerType, notNull: true}
	}
	if len(args) > 0 && args[0].Is("DISTINCT") {
		args = args[1:]
	}
	var values []value
	if len(args) > 0 {
		for _, arg := range split(args) {
			values = append(values, q.value(arg))
		}
	}
	return result(name, values)
}

// aggregation reports whether tokens are nothing, FILTER (…), OVER … or both.
func aggregation(tokens []sqltoken.Token) bool {
	if len(tokens) > 1 && tokens[0].Is("FILTER") {
		tokens = tokens[closing(tokens, 1)+1:]
	}
	if len(tokens) > 1 && tokens[0].Is("OVER") {
		if tokens[1].IsPunct("(") {
			return closing(tokens, 1) == len(tokens)-1
		}
		return len(tokens) == 2
	}
	return len(tokens) == 0
}

// cast returns what is known of CAST (expression AS type).
func (q *viewQuery) cast(args, over []sqltoken.Token) value {
	at := find(args, func(i int) bool { return args[i].Is("AS") })
	if at < 0 || len(over) > 0 {
		return value{}
	}
	declared := ""
	for _, t := range args[at+1:] {
		declared += t.Text
	}
	v := value{typ: declaredType(declared), notNull: q.value(args[:at]).notNull}
	if v.typ == numericType {
		v.typ = anyType
	}
	return v
}

// result returns what is known of the result of an SQL function
// (https://www.sqlite.org/lang_corefunc.html, lang_aggfunc.html).
func result(name string, args []value) value {
	arg := value{}
	if len(args) > 0 {
		arg = args[0]
	}
	all := len(args) > 0 // have arguments, and none of them is NULL
	some := false        // argument is never NULL
	for _, a := range args {
		all, some = all && a.notNull, some || a.notNull
	}
	switch name {
	case "total":
		return value{typ: realType, notNull: true}
	case "avg", "julianday", "round":
		return value{typ: realType}
	case "sum":
		if arg.typ == integerType || arg.typ == realType {
			return value{typ: arg.typ}
		}
	case "min", "max":
		if len(args) == 1 {
			return value{typ: arg.typ}
		}
		return value{typ: common(args), notNull: all}
	case "coalesce", "ifnull":
		return value{typ: common(args), notNull: some}
	case "iif", "if":
		if len(args) == 3 {
			return value{typ: common(args[1:]), notNull: args[1].notNull && args[2].notNull}
		}
	case "nullif":
		return value{typ: arg.typ}
	case "abs":
		if arg.typ == integerType || arg.typ == realType {
			return value{typ: arg.typ, notNull: all}
		}
	case "length", "octet_length":
		return value{typ: integerType, notNull: all}
	case "unicode", "instr", "sign", "json_array_length":
		return value{typ: integerType}
	case "random":
		return value{typ: integerType, notNull: true}
	case "hex", "quote", "typeof":
		return value{typ: textType, notNull: true}
	case "substr", "substring":
		if arg.typ == textType {
			return value{typ: textType}
		}
	case "upper", "lower", "trim", "ltrim", "rtrim":
		return value{typ: textType, notNull: all && common(args) == textType}
	case "replace", "printf", "format", "group_concat", "string_agg", "date", "time", "datetime", "strftime":
		return value{typ: textType}
	}
	return value{}
}

// scalar reports whether a function is known not to be an aggregate.
func scalar(name string) bool {
	switch name {
	case "cast", "coalesce", "ifnull", "iif", "if", "nullif", "abs", "round", "sign", "length", "octet_length", "unicode", "instr", "hex", "quote", "typeof",
		"substr", "substring", "upper", "lower", "trim", "ltrim", "rtrim", "replace", "printf", "format",
		"date", "time", "datetime", "strftime", "julianday", "unixepoch", "json_array_length", "json_extract", "uuid_text", "exists", "in":
		return true
	}
	return false
}

// common returns the type that all values have, if there is one.
func common(values []value) valueType {
	if len(values) == 0 || slices.ContainsFunc(values, func(v value) bool { return v.typ != values[0].typ }) {
		return anyType
	}
	return values[0].typ
}
