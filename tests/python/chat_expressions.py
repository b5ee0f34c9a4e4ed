"""Renders small templates with transformers' Jinja2, one or a few features each, for the tests of the runtime's own engine.

usage: chat_expressions.py [--seed N --random N] FILE

FILE gets the variables, and each template with its text: every method, filter, test, operator and statement that templates
may use, in many forms, then templates that a grammar draws by chance. What fails in Python is left out, as is what DIFFERS
names (docs/chat-templates.md has the reasons). Another seed gives other templates: the tests compare any file that
FORGE_EXPRESSIONS names. Needs transformers and jinja2.
"""

import argparse
import json
import random
import re

from transformers.utils.chat_template_utils import _cached_compile_jinja_template as compiled

VARIABLES = {
    "s": "  Hello, wörld! hello\tthere ", "e": "", "w": "it's a dOG's-life x2 ok", "csv": "a,b,,c",
    "lines": "one\ntwo\r\nthree\n\nfour", "sp": "  a  b ", "pad": "--x--", "q": "say \"hi\" & 'bye' \\ <b>",
    "u": "Ä ß ﬁ ǆ 日本 é́ 🙂", "n": 7, "z": 0, "neg": -13, "f": 2.5, "g": 1e20, "h": 3.0, "t": True, "fa": False, "no": None,
    "l": [3, 1, 2], "ls": ["b", "A", "c", "a"], "le": [], "lm": [1, "x", None, True, 2.5, [1], {"k": "v"}],
    "d": {"b": 1, "a": "x", "items": [1], "Z": None}, "de": {},
    "lo": [{"n": "x", "v": 2, "g": "p"}, {"n": "Y", "v": 1, "g": "q"}, {"n": "z", "v": 3, "g": "p", "w": True}],
    "nest": {"a": {"b": [{"c": "deep"}]}},
}

# Patterns of what is known to differ.
DIFFERS = [
    r"range\([0-9a-z, ]*\)( \}\}|\||.*sequence|.*lower)",  # a range is written as a list
    r"d\.(items|keys|values)\(\) \}\}", r"namespace\([^)]*\) (is|\}\})", r"\{\{ loop \}\}",  # so are views; objects
    r"d\.get( |\b\])", r"\.real", r"encode|translate|fromkeys|lipsum|self is|debug is|urlize|xmlattr",
    r"striptags|filesizeformat|wordwrap|pprint", r"attr\('", r"lo\|groupby\('g'\) \}\}", r"\bN\{|ud83d", r"swapcase",
    r"varargs", r"with a = n, b = a", r"\{1: ?2", r"\*\* (f|fa|0\.1)\b", r"neg \*\*|-3 \*\*|2\*\*130", r"l\[1\.0\]",
    r"(raise_exception|d|lo\[0\]|nest\.a|l\|map\('abs'\)) is lower", r"t\|abs", r"true\)$|\.format\(true\)", r"c\.current",
    r"messages is undefined", r"map\('attr'",
]

CASES = []


def add(*expressions):
    CASES.extend("{{ " + expression + " }}" for expression in expressions)


def tpl(*templates):
    CASES.extend(templates)


def enumerate_features():
    strs = ["s","e","w","csv","lines","sp","pad","q","u"]
    for m in "upper lower title capitalize swapcase strip lstrip rstrip split rsplit splitlines isalnum isalpha isdigit isnumeric isdecimal isspace islower isupper istitle isascii isidentifier isprintable casefold".split():
        for s in strs + ["'Abc'", "'ABC 1'", "'abc1'", "'12'", "'½'", "'   '"]: add(f"{s}.{m}()")
    for m in ["startswith","endswith","find","rfind","count","index","rindex","partition","rpartition","removeprefix","removesuffix"]:
        for a in ["'x'", "'a'", "','", "'--'", "''", "'hello'", "' '"]:
            for s in ["csv","pad","s","e"]: add(f"{s}.{m}({a})")
    for m in ["find","rfind","count","startswith","endswith","index"]:
        add(*[f"csv.{m}('{c}', {r})" for c in "a,c" for r in ["1","-2","1, 3","2, -1"]])
    add("csv.startswith(('x','a'))", "csv.endswith(('c','d'))", "csv.startswith(())")
    for m in ["strip","lstrip","rstrip"]: add(*[f"{s}.{m}({a})" for s in ["pad","csv","sp","s","lines"] for a in ["'-'","'-x'","''","' '","none","'\\n'", "'abc,'"]])
    for m in ["split","rsplit"]:
        add(*[f"{s}.{m}({a})" for s in ["csv","sp","s","e","lines","w"] for a in ["','","','","' '","none","', '","',', 1","none, 1","none, 2","maxsplit=1","sep=','","',', maxsplit=0","',', -1", "'\\n'", "sep=none, maxsplit=1", "'--'"]])
    add("lines.splitlines(true)", "lines.splitlines(keepends=true)", "'a\\x0bb\\x0cc\\x1cd\\u2028e\\rf\\r\\n'.splitlines()", "'\\n'.splitlines()", "''.splitlines()", "'a\\x85b'.splitlines()")
    add("csv.replace(',', ';')", "csv.replace(',', ';', 1)", "csv.replace('', '-')", "csv.replace(',', '', -1)", "csv.replace('zz','y')", "csv.replace(',', ';', 0)", "csv.replace('', '-', 2)")
    add("', '.join(ls)", "''.join(['a','b'])", "'-'.join('abc')", "'-'.join(d)", "','.join(d.keys())", "', '.join(ls | map('upper'))", "'x'.join([])", "','.join([1,2])", "', '.join(('a','b'))")
    add(*[f"'ab'.{m}({a})" for m in ["center","ljust","rjust","zfill"] for a in ["5","1","7","8"]], "'ab'.center(5, '*')", "'abc'.center(6,'*')", "'ab'.ljust(5,'.')", "'-5'.zfill(4)", "'+5'.zfill(4)", "'a\\tb'.expandtabs()", "'a\\tb'.expandtabs(4)", "'abc'.translate({97: 'x'})", "'x'.encode()")
    add("'{} {}'.format(1, 'a')", "'{0}{1}{0}'.format('a','b')", "'{a}-{b}'.format(a=1, b=[1,'x'])", "'{:>5}|{:<5}|{:^5}'.format('a','b','c')", "'{:05d}'.format(42)", "'{:.2f}'.format(3.14159)", "'{:,}'.format(1234567)", "'{!r}'.format('x')", "'{0[0]}'.format(l)", "'{0[a]}'.format(d)", "'{{}}'.format()", "'{:x} {:X} {:b} {:o} {:#x}'.format(255,255,5,8,255)", "'{:e}'.format(12345.678)", "'{:%}'.format(0.25)", "'{:.1%}'.format(0.256)", "'{:g}'.format(0.00001)", "'{:+d}'.format(5)", "'{:>{w}}'.format('a', w=4)", "'{:*^7}'.format('a')", "'{}'.format(none)", "'{}'.format(true)", "'{:s}'.format('q')", "'{:10.3}|'.format('abcdef')", "'{:08.3f}'.format(3.14159)", "'{:_}'.format(1234567)", "'{:c}'.format(97)", "'{}'.format(1.0)", "'{:d}'.format(true)","'{:5}|'.format(3)","'{:5}|'.format('a')","'{0.real}'.format(3)", "'%s' | format('x')")
    add("'%s' % 'a'", "'%s' % n", "'%s-%s' % (1, 'b')", "'%d' % 3.7", "'%05d' % 42", "'%.2f' % 3.14159", "'%5s|%-5s|' % ('a','b')", "'%x %X %o' % (255,255,8)", "'%(a)s' % {'a': 1}", "'%%' % ()", "'100%% %s' % 'x'", "'%r' % 'x'", "'%s' % [1,'a']", "'%s' % none", "'%s' % (none,)", "'%s' % d", "'%e' % 12345.678", "'%g' % 0.00001", "'%+d' % 5", "'%c' % 97", "'%c' % 'z'", "'%i' % 5", "'%5.1f|' % 2.25", "'%-8s|' % 'é'", "'%s %s' % ('a', ['b'])", "'%*d' % (5, 42)", "'a' ~ '%s' % 1", "7 % 3", "-7 % 3", "7.5 % 2", "'%s' % true", "('%s' % 'x') + 'y'", "'%s' % s.strip()", "n % 2 == 1", "'%s' % n + 'k'", "'%03d.%s' % (7, 'x') | upper", "'%#x' % 255", "'%.3s|' % 'abcdef'")
    ops = ["+","-","*","/","//","%","**"]
    nums = ["7","0","neg","f","h","t","fa","2","-3","0.1","1e3", "big"]
    add(*[f"{a} {o} {b}" for o in ops for a in nums for b in nums if not (o=="**" and b in ("big","1e3"))])
    add("1.0","1e16","1e15","1.5e300","1e-5","0.0001","123456789.123","-0.0","1_000","0x1F","0o17","0b11","1e2","3.0*2","10/2","2**0.5","2**-1","7//2.0","-7//2","g","big","1.0e5|int","100000000000000000000","2**70","2**130", "1/3", "1e22", "1e400", "-1e400", "5 .real", "true + true", "true * 'a'", "0.1+0.2", "1e5")
    add("lm","d","lo","['a\"b', \"it's\", 'both\\'\"']","['\\n\\t\\r\\\\\\x00\\x7f é 🙂 \\u200b\\xa0\\u2028']","(1,)","()","(1,2)","[]","{}","[(1,'a')]","[none,true,1.0,1e20]","{'a': (1,)}","{1: 2, none: 3, true: 4, 1.5: 5}","d.items()","d.keys()","d.values()", "[undefinedx]", "range(3)", "namespace(a=1)", "[''.join(['a'])]", "{'a','b'}|length", "nest", "[1e16, 0.1, -0.0]", "'a' ~ [1] ~ {} ~ none ~ true ~ 1.0", "[1]|string", "lm|string", "d|string")
    add("'a' * 3","3 * 'ab'","'a' * 0","'a' * -1","[1] * 2","(1,2) * 2","2 * [0]","'a' + 'b'","[1]+[2]","(1,)+(2,)","'a' ~ 1 ~ none","'a' 'b'","'a' + 1","[1] + (2,)","1 + none","'x' + undefinedx","undefinedx + 'x'","undefinedx ~ 'x'","none ~ ''","d + d","l - l", "'a' in 'abc'","'' in 'abc'","1 in l","'b' in d","'x' not in d","none in lm","'a' in undefinedx","1 in 'a'","'a' in none","[1] in lm", "1.0 in l", "True in [1]", "not 'a' in 'abc'", "not n == 7 and t", "(1 in l) == true")
    add("1 < 2 < 3","1 < 3 < 2","1 == 1.0","1 == true","'a' < 'b'","'a' == \"a\"","[1,2] < [1,3]","[1] == [1.0]","(1,) == [1]","none == false","none == none","0 == ''","undefinedx == none","undefinedx == undefinedx","undefinedx is none","'B' < 'a'","1 < 2 == true","3 > 2 > 1 == 1","{'a':1} == {'a':1.0}","'a' != 'b' != 'a'","1 in [1] == true","true < 2","none < 1","'a' < 1","1.5 >= 1","l == [3,1,2]","d == {'a':'x'}", "1 is 1")
    add("e or 'x'","0 or none","none or 0","'a' and 'b'","e and 'b'","not e","not l","not 0.0","[] or {}","undefinedx or 'x'","undefinedx and 1","(none and 1) is none","1 if t","1 if fa","1 if fa else 2","(1 if fa) is defined","'a' if e else 'b' if z else 'c'","not not 1","1 and not 0","t and fa or t", "1 or 2 and 3", "[] and 1", "() or 'e'", "de or 'e'", "range(0) or 'e'", "0.0 or 'e'", "-1 or 2", "d.get('zz') or 'dflt'", "(d|selectattr('x')) and 1")
    add(*[f"{x}[{i}]" for x in ["l","'abcdef'","ls","(1,2,3,4)","u"] for i in ["0","-1","1:","::-1",":2","1:3","-2:","::2","5:","3:1","-1:-3:-1",":-1","-100:100","::-2","4::-1",":1:-1", "99", "-99"]])
    add("range(10)[2:5]|list","range(10)[::3]|list","range(5)[-1]","lo[1:]|length","l[n:]","l[:none]","l[none:1]","'abc'[t]","d['b']","d['nope']","d['nope'] is defined","d.nope is defined","nest.a.b[0].c","nest['a']['b'][0]['c']","nest.x.y","nest.x is defined","undefinedx.y","undefinedx['y']","l.0","l[0]","lo.0.n","'abc'.0","s[0].x is defined","n.x is defined","none.x is defined","l['a'] is defined","l['0'] is defined","d.items","d['items']","d[0] is defined","l[1.0] is defined", "lm[6].k", "('a','b')[0]", "{'a': 1}['a']", "{'a': 1}.a", "{1: 'x'}[1]","{1: 'x'}[true]", "s.strip", "'abc'[1:][0]", "l[-1:][0]", "l[0:1] + l[1:2]", "messages is undefined or messages", "l[:-1]|last", "l[::0]")
    tests_ = "defined undefined none string number integer float boolean mapping sequence iterable callable true false odd even lower upper sameas escaped".split()
    vals = ["s","e","n","z","neg","f","h","t","fa","no","l","le","d","de","lm","undefinedx","(1,2)","range(2)","'abc'","'ABC'","d.items()","l|map('abs')","raise_exception", "nest.a", "d.nope","lo[0]", "d.get", "namespace()", "big"]
    for t in tests_:
        if t=="sameas": continue
        add(*[f"{v} is {t}" for v in vals])
        add(f"n is not {t}")
    add("n is divisibleby 7","n is divisibleby(2)","n is eq 7","n is equalto 7","n is ne 3","n is lt 8","n is le 7","n is gt 1","n is ge 7","n is greaterthan 3","n is lessthan 3","n is in [7]","'a' is in 'abc'","no is sameas none","t is sameas true","1 is sameas true","n is == 7","n is > 3", "n is not in [1]", "'a' is in d", "'upper' is filter", "'zz' is filter", "'odd' is test", "s is string and n is number", "not s is string", "n is odd or t", "n is number if t else 1", "s is defined and s is not none", "n is divisibleby 7 and t", "(s is string) ~ 'x'", "s is string == true")
    flt = {
     "upper":[], "lower":[], "title":[], "capitalize":[], "trim":[], "length":[], "count":[], "first":[], "last":[], "reverse":["|list"], "sort":[], "list":[], "string":[], "int":[], "float":[], "abs":[], "unique":["|list"], "min":[], "max":[], "sum":[], "join":[], "tojson":[], "items":["|list"], "dictsort":[], "safe":[], "escape":[], "e":[], "wordcount":[], "pprint":[], "urlencode":[], "striptags":[], "forceescape":[], "round":[], "random":[], "filesizeformat":[], "indent":[], "wordwrap":[], "center":[], "truncate":[], "batch":[], "slice":[], "default":[], "d":[], "attr":[], "xmlattr":[], "map":[], "select":["|list"], "reject":["|list"], "groupby":[], "replace":[], "format":[], "tojson":[]}
    for fn, post in flt.items():
        if fn in ("random","batch","slice","attr","map","groupby","xmlattr"): continue
        for v in ["s","w","lines","q","u","n","neg","f","h","t","no","l","ls","le","lm","d","de","lo","undefinedx","(1,2)","'12'","'3.7'","'abc'","' x '", "'0x1A'", "range(4)", "e"]:
            add(f"{v}|{fn}" + ("".join(post)))
    add("s|trim('- ')","pad|trim('-')","pad|trim(chars='-x')","s|default('x')","undefinedx|default('x')","undefinedx|default('x', true)","e|default('x', true)","e|default('x', boolean=true)","e|default('x')","no|default('x')","no|default('x', true)","undefinedx|default","undefinedx.a|default('x')","d.nope|default('q')|upper","nest.x|d({})|length","l|join(', ')","lo|join(',', attribute='n')","lo|join(',', 'n')","lm|join('-')","l|join('-', none)","d|join","ls|join|upper",
     "ls|sort","ls|sort(reverse=true)","ls|sort(case_sensitive=true)","lo|sort(attribute='v')|map(attribute='n')|list","lo|sort(attribute='n')|map(attribute='n')|join","lo|sort(attribute='g,v', reverse=true)|map(attribute='v')|list","ls|sort(true)", "ls|sort(false, true)",
     "lo|map(attribute='n')|list","lo|map(attribute='w')|list","lo|map(attribute='w', default='-')|list","lo|map('upper')|list","ls|map('upper')|join(',')","l|map('string')|list","ls|map('replace','a','b')|list","['1','2']|map('int')|sum","lo|map('attr','n')|list","lo|map(attribute='n.x')|list","nest.a.b|map(attribute='c')|list","[[1,2],[3,4]]|map('first')|list","[[1,2],[3,4]]|map(attribute=0)|list","[[1,2],[3,4]]|map(attribute='1')|list","ls|map('default','x')|list","l|map('tojson')|join","ls|map('trim')|map('upper')|list", "ls|map('length')|list","lo|map('items')|map('list')|list", "l|map('float')|list",
     "l|select('odd')|list","l|select|list","lm|select|list","lm|select('string')|list","l|select('gt', 1)|list","l|select('greaterthan', 1)|list","l|select('in', [1,2])|list","l|reject('odd')|list","lm|reject|list","lm|reject('none')|list","lo|selectattr('w')|list|length","lo|selectattr('w','defined')|map(attribute='n')|list","lo|selectattr('g','equalto','p')|list|length","lo|selectattr('g','==','p')|map(attribute='n')|join","lo|selectattr('v','gt',1)|map(attribute='n')|join","lo|rejectattr('g','eq','p')|map(attribute='n')|join","lo|rejectattr('w')|map(attribute='n')|join","lo|selectattr('n','in',['x','z'])|map(attribute='v')|list","lo|selectattr('w','undefined')|list|length", "lo|selectattr('g','ne','p')|first", "lo|selectattr('n','string')|list|length","lo|selectattr('zz.y')|list|length",
     "lo|groupby('g')|list|length","lo|groupby('g')|map('first')|list","lo|groupby(attribute='g')|map(attribute='grouper')|list","lo|groupby('w', default='none')|map('first')|list","lo|groupby('n')|map('first')|list","lo|groupby('n', case_sensitive=true)|map('first')|list","(lo|groupby('g'))[0].list|length","lo|groupby('g')",
     "ls|unique|list","['a','A','b']|unique|list","['a','A','b']|unique(case_sensitive=true)|list","lo|unique(attribute='g')|map(attribute='n')|list","ls|min","ls|max","lo|max(attribute='v')","lo|min(attribute='v')","['a','B']|max(case_sensitive=true)","l|sum(start=10)","lo|sum(attribute='v')","lo|sum('v', 5)","[0.1]*3|sum","le|sum", "[1.5,2]|sum","le|min","le|max is undefined",
     "n|round","f|round","f|round|int","3.14159|round(2)","2.5|round","3.5|round","2.675|round(2)","1234|round(-2)","2.1|round(method='ceil')","2.9|round(0,'floor')","2.11|round(1,'ceil')","42|round","1.5|round(1)","0.5|round", "-2.5|round",
     "'12'|int","'x'|int","'x'|int(5)","'x'|int(default=5)","'0x1F'|int(base=16)","'1F'|int(0,16)","'12.9'|int","none|int","'-7'|int","' 12 '|int","'1_000'|int","true|int","3.99|int","-3.99|int","'1e3'|int","'x'|float","'x'|float(1.5)","'1.5'|float","'1e3'|float","'inf'|float","'nan'|float","n|float","none|float", "undefinedx|int", "'101'|int(base=2)", "'0b11'|int(base=0)","l|int(3)","l|float",
     "lines|indent","lines|indent(2)","lines|indent(2, true)","lines|indent(2, true, true)","lines|indent(width=2, first=true)","lines|indent('> ')","lines|indent(blank=true)","'a\\n\\nb\\n'|indent(2)","'a\\n\\nb\\n'|indent(2,blank=true)","''|indent(2,true)","'a\\r\\nb'|indent(2)", "lines|indent(2, false)","lines|indent(indentfirst=true)",
     "w|wordwrap(8)","w|truncate(10)","w|truncate(10,true)","w|truncate(10,true,'')","w|truncate(9,false,'..',0)","w|truncate(20)","'abc'|center(9)","'abc'|center(8)","w|replace('o','0')","w|replace('o','0',1)","n|replace('7','8')","w|wordcount",
     "[1,2,3,4,5]|batch(2)|list","[1,2,3,4,5]|batch(2,'x')|list","[1,2,3,4,5]|slice(2)|list","[1,2,3,4,5]|slice(3,'x')|list","l|first","'abc'|first","'abc'|last","le|first is defined","d|first","d|list|last","range(3)|last","l|reverse|list","'abc'|reverse","(1,2)|reverse|list","d|reverse|list","d.items()|list|reverse|first", "lo|first|tojson",
     "d|dictsort","d|dictsort(true)","d|dictsort(false,'value')","{'b':1,'A':2,'c':0}|dictsort","{'b':1,'A':2,'c':0}|dictsort(true)","{'b':1,'A':2,'c':0}|dictsort(by='value')","{'b':1,'A':2,'c':0}|dictsort(reverse=true)","d|items|list","de|items|list","undefinedx|items|list","none|items|list","d|list","'abc'|list","d|length","d.items()|list|length","d.keys()|list","d.values()|list","d|attr('b')","lo|attr('n')|default('u')","'x'|attr('upper') is defined","d|tojson|length",
     "'%s-%s'|format('a',1)","'%(x)s'|format(x=2)","'%.1f'|format(2.25)","'%5d'|format(3)","'a<b>'|escape","q|e","'<b>x</b> y'|striptags","'a b&c/d?e=é'|urlencode","{'a':1,'b':'x y'}|urlencode","[('a',1)]|urlencode","1000|filesizeformat","1500000|filesizeformat","1024|filesizeformat(true)","12|filesizeformat","1|filesizeformat","{'a':1,'b':none}|xmlattr","lo|pprint","('a'|safe) ~ '<'","'<'|safe|length","'<b>'|safe|escape","'<b>'|forceescape","['<b>']|join","'a'|upper|lower|title","n|string|length","'http://x.y z'|urlize","'a\\nb'|title","'x'|upper()","'abc'|batch(2)|map('join')|list","l|list|sort|first","l|sort|reverse|list", "l|sort|join('<')")
    add(*[f"{v}|tojson({a})" for v in ["lo[0]","lm","s","d","u","[]","{}","[[],{}]","[1.0,1e20,1e-7]"] for a in ["","indent=2","indent=0","indent=none","4" if False else "indent=4","ensure_ascii=true","true","false","sort_keys=true","separators=(',',':')","separators=(',', ': ')","separators=[',',':'], indent=1","false, 2","true, none, (',',':'), true","indent='\\t'","indent='--'","separators=none","indent=2, sort_keys=true, ensure_ascii=true", "indent=-1", "indent=true"]])
    add("lo|tojson|safe","undefinedx|tojson","(1,2)|tojson","range(2)|tojson","d.items()|tojson","{1:2, none:3, true:4, 1.5: 2}|tojson","d|tojson == d|tojson","'</script>\\u2028'|tojson","'\\x7f\\x00\\x1f'|tojson","[1,2]|tojson ~ 'x'","{'a':'é'}|tojson|upper","namespace(a=1)|tojson","{'b':{'z':1,'a':2},'a':0}|tojson(sort_keys=true)","{2:1,1:1}|tojson(sort_keys=true)","'inf'|float|tojson","[-0.0, 1e16, 123456789012345678901234567890]|tojson", "l|map('string')|list|tojson","(l|map('string'))|tojson")
    add("d.get('b')","d.get('zz')","d.get('zz', 5)","d.get('zz', default=5)","d.items()|list","d.keys()|list","d.values()|list","'b' in d.keys()","d.items()|length","d.keys()|length","dict(a=1)","dict(d)","dict(d, c=1)|length","dict([('a',1)])","{'a':1}|length","{**d}" if False else "d","d.copy()","d.update({'q':1})","d.pop('b')","d|dictsort|first","dict(a=1).items()|list","{'a':1,'a':2}","d.get","d.get('b').x is defined","dict.fromkeys(['a','b'])","dict.fromkeys(['a'], 1)","d.setdefault('x',1)", "d.has_key('b')", "(d.items()|list)[0][1]", "d.items()|first","d.values()|sum is defined", "d['a'] ~ d.b", "{'a': {'b': 1}}.a.b", "{'items': 1}.items", "{'get': 1}.get", "{'a':1}.items() | map('first') | list", "{'a':1}.items() == {'a':1}.items()", "d.keys() | join(',')", "d.keys()|sort|first", "{'x':1}.keys()|list == ['x']")
    add("l.count(1)","l.index(2)","l.index(99)","l.copy()","l.append(1)","l.pop()","l.sort()","(1,2,1).count(1)","(1,2).index(2)","[*l]" if False else "l","l+ls","l.extend([1])","l.reverse()","l.insert(0,1)", "l.clear()", "l.remove(1)")
    add(r"'a\nb'", r"'a\\nb'", r"'\x41\u00e9\U0001F642'", r"'\q'", r"'\''", r'"\""', r"'\101'", r"'\0'", r"'a\
    b'", r"'\a\b\f\v'|tojson", r"'\N{BULLET}'", r"'\ud83d\ude42'|length", "'\"'", "'{{'", "'%}'", "'#}'", "'{%'", r"'\/'", r"'\d+'", r"'\t|\r'|tojson", "'é'", "\"it's\"", "'tab\there'", r"'\x4'", r"'\u00'")
    add("[1, 2,]","(1,2,)","{'a':1,}","[]","1,2","(1)","true, none","True","None","False","true is true","none","undefinedx","1_0","[1,[2,(3,)]]","{'a': [1], 'b': {'c': 2}}","{n: 1}","{'a' ~ 'b': 1}","{(1,2): 3}","- 5","-n","+n","--5","-n|abs","-5|abs","(-5)|abs","2**3**2","-2**2","2 ** -1","10 - 2 - 3","2 + 3 * 4","(2 + 3) * 4","7 // 2 * 2","1 ~ 2 + 3","1 + 2 ~ 3","'a' ~ 1 == 'a1'","n.__class__","not t == fa","1 < 2 and 3","[1,2][0] + 1","{'a':1}['a'] + 1","lo[0].v + lo[1]['v']","'a'.upper() ~ 'b'.upper()","('a' ~ 'b').upper()","'a' ~ 'b'.upper()","n if n > 3 else 0","(n > 3) ~ ''","n|string ~ 'x'","1 if 1 else 2 ~ 'x'", "l|length > 2", "l|length * 2", "not l|length", "l|first + 1", "-l|first", "s|trim|length - 1", "'a' if t else 'b' ~ 'c'", "1.|string" , "1 .x is defined", "true.x is defined", "'a'.x is defined", "..." )
    add("range(3)|list","range(1,4)|list","range(5,0,-2)|list","range(0)|list","range(3)|length","3 in range(4)","lipsum is defined","joiner is defined","cycler is defined","cycler('a','b').next()","joiner(',')()","strftime_now('%%')","namespace(a=1).a","namespace().x is defined","namespace({'a':2}, b=3).b","namespace(d).b","raise_exception('x')","range(2,5)|sum", "dict() | length", "undefinedfn()", "self is defined", "loop is defined", "caller is defined", "varargs is defined", "true()", "s.nope()", "url_for is defined", "debug is defined", "range('a')", "range(1.5)", "list is defined", "str is defined","len is defined", "print is defined","zip is defined", "true|string","(1,2)|list", "super is defined")
    tpl("{% for x in l %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.depth }}{{ loop.depth0 }};{% endfor %}",
    "{% for x in l %}{{ loop.previtem|default('-') }}{{ x }}{{ loop.nextitem|default('-') }} {% endfor %}","{% for x in l %}{{ loop.cycle('a','b') }}{% endfor %}","{% for x in [1,1,2] %}{{ loop.changed(x) }}{% endfor %}","{% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %}","{% for k, v in d|items %}{{ k }}={{ v }};{% endfor %}","{% for k in d %}{{ k }}{% endfor %}","{% for x in le %}a{% else %}empty{% endfor %}","{% for x in undefinedx %}a{% else %}empty{% endfor %}","{% for x in none %}a{% endfor %}","{% for x in l if x > 1 %}{{ loop.index }}/{{ loop.length }}:{{ x }} {% endfor %}","{% for x in l recursive %}{{ x }}{% endfor %}","{% for x in nest recursive %}{{ x }}{% endfor %}","{% for x in [{'c':[{'c':[]}]}] recursive %}[{{ loop(x.c) }}]{{loop.depth}}{% endfor %}","{% for (a, b) in [(1,2),(3,4)] %}{{ a+b }}{% endfor %}","{% for a, (b, c) in [(1,(2,3))] %}{{ a }}{{ b }}{{ c }}{% endfor %}","{% for a, b in [[1,2,3]] %}{% endfor %}","{% for c in 'abc' %}{{ c }}-{% endfor %}","{% for x in l %}{% if x == 1 %}{% continue %}{% endif %}{{ x }}{% endfor %}","{% for x in l %}{% if x == 1 %}{% break %}{% endif %}{{ x }}{% else %}no{% endfor %}","{% for x in range(3) %}{% set y = x %}{% endfor %}{{ y is defined }}","{% set y = 1 %}{% for x in l %}{% set y = y + x %}{{ y }}{% endfor %}{{ y }}","{% set ns = namespace(i=0) %}{% for x in l %}{% set ns.i = ns.i + x %}{% endfor %}{{ ns.i }}","{% set a, b = 1, 2 %}{{ a }}{{ b }}","{% set a %}x{{ n }}y{% endset %}{{ a }}|{{ a|length }}","{% set a | upper %}xy{% endset %}{{ a }}","{% if t %}a{% elif n %}b{% else %}c{% endif %}","{% if fa %}a{% elif n %}b{% else %}c{% endif %}","{% if undefinedx %}a{% else %}b{% endif %}","{% if undefinedx.y %}a{% endif %}","{% with a = 1, b = 2 %}{{ a + b }}{% endwith %}{{ a is defined }}","{% with %}{% set q = 1 %}{{ q }}{% endwith %}{{ q is defined }}","{% with a = n, b = a %}{{ b }}{% endwith %}","{% macro m(a, b=2, c=none) %}{{ a }}-{{ b }}-{{ c }}{% endmacro %}{{ m(1) }}|{{ m(1, c=3) }}|{{ m(b=5, a=4) }}","{% macro m(a) %}{{ a }}{{ varargs }}{{ kwargs }}{% endmacro %}{{ m(1, 2, 3, k=4) }}","{% macro m(a) %}{{ a is defined }}{% endmacro %}{{ m() }}","{% macro m() %}[{{ caller() }}]{% endmacro %}{% call m() %}x{{ n }}{% endcall %}","{% macro m() %}[{{ caller(1, 'b') }}]{% endmacro %}{% call(a, b) m() %}{{ a }}{{ b }}{% endcall %}","{% macro m() %}{{ n }}{% endmacro %}{{ m() }}{{ m.name }}","{% macro m(x) %}{% if x > 0 %}{{ x }}{{ m(x - 1) }}{% endif %}{% endmacro %}{{ m(3) }}","{% macro m(x) %}  {{ x }}\n{% endmacro %}{{ m(1) | trim }}|{{ m(2).strip() }}|{{ m(1) ~ 'z' }}","{% macro m(a, b=a) %}{{ b }}{% endmacro %}{{ m(3) }}","{% macro m(x) -%} {{ x }} {%- endmacro %}{{ m(1) + 'q' }}{{ m(1) is string }}{{ m(1) == '1' }}","{% filter upper %}abc{{ n }}{% endfilter %}","{% filter indent(2) %}a\nb{% endfilter %}","{% filter trim | upper %} a {% endfilter %}","{% raw %}{{ x }}{% endraw %}","{%- raw -%} {{ x }} {%- endraw -%} z","{# comment #}a{#- c -#} b","{% do l.append(1) %}","{% block b %}x{{ n }}{% endblock %}","{% set x = [1] %}{{ x + [2] }}","{% set x = x if x is defined else 'd' %}{{ x }}","{% generation %}abc{% endgeneration %}","a {%- generation -%} b {%- endgeneration -%} c","{% generation %}{% set zz = 1 %}{% endgeneration %}{{ zz is defined }}","{% for x in l %}{% generation %}{{ x }}{% endgeneration %}{% endfor %}","{% autoescape true %}{{ '<' }}{% endautoescape %}{{ '<' }}","{% autoescape false %}{{ '<' }}{% endautoescape %}","{% set ns = namespace(a=[]) %}{% set ns.a = ns.a + [1] %}{{ ns.a }}","{% set d2 = dict(d, q=1) %}{{ d2.q }}","{% if n == 7 and not (fa or e) %}y{% endif %}","{% for i in range(3) %}{% for j in range(2) %}{{ loop.index }}{{ i }}{% endfor %}{% endfor %}","{% for i in l %}{% set outer = loop %}{% for j in ls %}{{ outer.index }}{% endfor %}{% endfor %}","{% for m in lo %}{% if not loop.first %}, {% endif %}{{ m.n }}{% endfor %}","{% for m in lo|sort(attribute='v') %}{{ m.v }}{% endfor %}","{% for g in lo|groupby('g') %}{{ g.grouper }}:{{ g.list|length }};{% endfor %}","{% for g, items in lo|groupby('g') %}{{ g }}:{{ items|length }};{% endfor %}","{% for a in l[::-1] %}{{ a }}{% endfor %}","{% for a in l|reverse %}{{ a }}{{ loop.last }}{% endfor %}","{% for a in d|dictsort %}{{ a[0] }}{% endfor %}","{% set _ = n %}{{ _ }}","{% print n %}","{% if n %}\n a\n{% endif %}\nb\n","a\n\n{% if n %}x{% endif %}\n\nb\n\n","  {% if n %}  x  {% endif %}  \n y","{{ n }}\n{{ n }}\n","\t{%- if n -%}\n\tx\n\t{%- endif %}\n","  {# c #}  \nx","  {%+ if n %}x{% endif +%}\ny","{%- set x = 1 -%}\n\n{{- x -}}\n\n y","{{ n -}} \n x","x \n {{- n }}","{% for x in l -%}\n  {{ x }}\n{%- endfor %}","x\n  {%- for x in l %}\n  {{ x }}\n  {%- endfor %}\n","{% set x -%}\n  a\n{%- endset %}[{{ x }}]","{% if fa %}{% else %}\nx\n{% endif %}","a\r\nb{% if n %}\r\nc\r\n{% endif %}\r\nd\r\n","a\rb\r","{{ 'a\r\nb' }}","{% if n %}\n\n\na{% endif %}","\n\na\n\n","a\n","a\n\n","","{{ '' }}\n","  {%- if n %}\n  a\n  {%- endif %}\n  b","a  {# c -#}  b","{{ '{{ x }}' }}","{% raw %}\n  a\n{% endraw %}\nb","{% set a = 'x' %}\n{% set b = 'y' %}\n{{ a }}{{ b }}\n","{% macro f() %}\n  a\n{% endmacro %}\n{{ f() }}","{% if true %}{{- ' a ' -}}{% endif %}", "{% set x = 1 %}{% macro m() %}{{ x }}{% endmacro %}{% set x = 2 %}{{ m() }}","{% for x in l %}{% macro m() %}{{ x }}{% endmacro %}{{ m() }}{% endfor %}","{% set ns = namespace(x=1) %}{% macro m() %}{% set ns.x = 5 %}{% endmacro %}{{ m() }}{{ ns.x }}","{% if t %}{% set k = 3 %}{% endif %}{{ k }}","{% with %}{% set t = 9 %}{% endwith %}{{ t }}","{% set ns = namespace() %}{{ ns.zz is defined }}{% set ns.zz = 1 %}{{ ns.zz }}","{% set d.x = 1 %}","{{ loop is defined }}","{% for x in l %}{{ loop.index if loop.index > 1 }}{% endfor %}","{% for x in l %}{{ loop }}{% endfor %}","{% for _ in range(2) %}.{% endfor %}","{%if n%}a{%endif%}","{%-if n-%} a {%-endif-%}","{{n}}{{-n}}{{ n-1 }}{{n -1}}","{% set n = n + 1 %}{{ n }}","{% set x = 'a' if n else 'b' %}{{ x }}","{% set (a, b) = (1, 2) %}{{ a }}","{% for k, v in lo[0].items() if v is string %}{{ k }}{% endfor %}","{% for x in (1,2) %}{{x}}{% endfor %}","{% for x in 1,2,3 %}{{ x }}{% endfor %}","{% if 'a' in ls and 'z' not in ls %}y{% endif %}","{% include 'x' ignore missing %}a","{% for x in l %}{% if loop.first %}{% set first = x %}{% endif %}{% endfor %}{{ first is defined }}", "{% macro a(x) %}{{ x }}{% endmacro %}{{ [1,2]|map('string')|join }}{{ a(x=1) }}", "{{ caller is defined }}", "{% for x in l %}{% else %}{% endfor %}", "{% set foo = namespace(bar='x') %}{{ foo['bar'] }}{{ foo.bar }}", "{%- for x in [1,2,3] %}{%- if loop.index0 % 2 == 0 %}{{ x }}{%- endif %}{%- endfor %}", "{% if loop %}a{% else %}b{% endif %}", "{{ 1 if n > 5 and n < 10 else 0 }}", "{% set a = [] %}{% for x in l %}{% set a = a + [x] %}{% endfor %}{{ a }}", "{% set x = none %}{{ x }}|{{ x is none }}", "{% trans %}a{% endtrans %}", "{% debug %}", "{{ self.b() }}{% block b %}q{% endblock %}", "{% set x, y = lo[0].n, 2 %}{{ x ~ y }}", "{% for a in [1] %}{% set ns = namespace(v=a) %}{{ ns.v }}{% endfor %}", "{% call undefinedx() %}{% endcall %}", "{% macro m(a=[], b={}) %}{{ a }}{{ b }}{% endmacro %}{{ m() }}", "{% macro m(*a) %}{% endmacro %}", "{{ range(3) | map('string') | join(',') }}", "{% set m = messages | default([]) %}{{ m }}", "{% set x = ('a' ~ 'b') | upper %}{{ x }}", "{{ 'a' | upper ~ 'b' | upper }}", "{{ ('a', 'b') | join }}", "{{ m(*[1,2]) }}", "{% macro m(a,b) %}{{a}}{{b}}{% endmacro %}{{ m(*[1,2]) }}{{ m(**{'a':1,'b':2}) }}", "{{ dict(**{'a':1}) }}", "{{ '%s%s' | format(*['a','b']) }}")

    add(*["'{:%s}'.format(%s)"%(sp,v) for sp in ["","5","<5","^5",">5","*^7","é^7","05",".2","8.3","s","10s","<10.2s"] for v in ["'aé'","'日本'","'a'"]], *["'{:%s}'.format(%s)"%(sp,v) for sp in ["d","5","05","+",",","x","b","o","X","<6","^6","*>6",".2f","8.2f","e","g","%",".1%","08.2f","_"] for v in ["42","-7","3.14159","true","1234567","0"]])
    add(*["'%%%s' %% %s"%(sp,v) for sp in ["s","5s","-5s",".2s","5.1s","r","d","5d","-5d","05d","+d","x","o","f",".1f","8.2f","e","g","c","i","u","5r"," d","#x"] for v in ["42","-7","3.5","'aé'","true","(1,)","none" ]])
    add("'%s' % n % 'x'", "10 % 4 % 3", "10 * 3 % 4", "10 % 4 * 3", "10 % (4 * 2)", "-10 % 3", "10 % -3", "10 - 7 % 4", "10 % 3 + 1", "2 ** 5 % 7", "7 % 2 ** 2", "n % 2 == 0 or n % 2 == 1", "n % 2 is odd", "n is divisibleby 7 % 4", "(n % 2)|string", "n % 2|int", "n|int % 2", "'%s-%s' % (n % 2, 'a' * 2)", "l[n % 3]", "l[n % 3:]", "{'a': n % 3}", "[n % 3, n % 2]", "n % 3 if n % 2 else n % 4", "not n % 7", "f % 2", "(1, 2)[n % 2]", "lo[n % 3].n % ()", "'a%sb' % 'x' ~ 'c%sd' % 'y'", "n % 3 ~ n % 2", "n % 3 * n % 2", "n % 3 in [1]", "n % 3 not in [1]", "1 < n % 3 < 5", "-n % 3", "+n % 3", "'%d%%' % 5", "n //2 % 2", "n / 2 % 2", "'%s' % ('a' if t else 'b')", "'%s' % 'a' if t else 'b'")
    add("'ab' * n", "n * 'ab'", "'a' * (n - 9)", "[1] * (n - 5)", "(1,) * n", "[0] * -1", "n * f * 2", "n * n / 2", "2 * n + 1", "'  ' * z ~ 'x'", "t * 3", "'x' * t", "'x' * 2 * 2", "n * 2 ** 2", "f * none", "'x' * 2.0", "l * l", "n * 9223372036854775807", "'a' * 2 + 'b' * 3", "loop_x * 2")
    tpl("{% macro m(a, b=a) %}{{ b }}{% endmacro %}{{ m(3) }}{{ m(1,2) }}{{ m(1,b=none) }}","{% macro m(a, b=a|upper, c=b ~ '!') -%}\n {{ a }}{{ b }}{{ c }}{%- endmacro %}{{ m('x') }}{{ m('x', c='q') }}","{% macro m(a='(', b=')' ~ a) %}\n{{ b }}\n{% endmacro %}[{{ m() }}]","{% macro m(a, b=n) %}{{ b }}{% endmacro %}{{ m(3) }}", "{% set x = 1 %}{% set ns = namespace(a=0) %}{% macro m() %}{% set ns.a = x + 1 %}{% set ns.b = 1, 2 %}{% endmacro %}{{ m() }}{{ ns.a }}{{ ns.b }}", "{% macro m() %}{{ caller() }}{% endmacro %}{% set ns = namespace(a=0) %}{% call m() %}{% set ns.a = 5 %}{% endcall %}{{ ns.a }}","{% set s2 = joiner(', ') %}{% for x in l %}{{ s2() }}{{ x }}{% endfor %}","{% set c = cycler('a','b') %}{{ c.next() }}{{ c.next() }}{{ c.current }}","{% for a in l %}{% for b in l %}{% if loop.index > 1 %}{% break %}{% endif %}{{ b }}{% endfor %}{{ loop.index }}{% endfor %}",
     "{% raw %}{% endraw %}", "{% raw -%}  a {%- endraw %} b", "x {%- raw %} {{ 'a' }} \"q\" \\n {% if %}{% endraw -%}  y", "{% raw %}\n {{ x }}\n {% endraw %}\ny", "  {% raw %} a{% endraw %}\n\n b", "{% raw %}{#{% endraw %}", "{% raw %}a{%+ endraw %}b", "{%- raw -%}\n\n a\n\n{%- endraw -%}\n b", "  {%- print n -%}  x", "  {% print n, 2 %}\n x", "{% print 'a' if t else 'b' %}",
     "{{ '}}' }}{{ '%}' }}{{ \"{{\" }}", "{% set x = '%}' %}{{ x }}", "{{ {'a': {'b': 1}}.a.b }}", "{{ {'a': {}} }}", "{{{'a':1}}}", "{% if {'a':{}} %}x{% endif %}", "{#{{ x }}#}y{# {% #}z", "{{ 'it''s' }}", "{{ 'a'\n 'b' }}", "{%\nif\nn\n%}a{%\nendif\n%}", "{{\nn\n}}", "{{n|string|length}}", "{{ (n) }}", "{{ ((n)) + (1) }}", "{%- set a = {\n 'x': 1,\n 'y': [1, 2]\n} -%}{{ a.y[-1] }}", "a { b } {c} { {", "{", "%}", "}}", "a #} b", "{ {n} }", "{{ '#}' }}", "{{ n }}}", "{{{ n }}}","{% for a,b in [[1,2]] %}{{a}}{{b}}{% endfor %}", "{% for x in l, ls %}{{ x|length }}{% endfor %}", "{% for x in 1, 2 if x > 1 %}{{ x }}{% endfor %}", "{% set x = 1, %}{{ x }}", "{% set x = () %}{{ x }}", "{% if n is not none and n is defined %}a{% endif %}", "{% if not n is none %}a{% endif %}", "{% if n is not in [1] %}a{% endif %}", "{% if not (n in [1]) %}a{% endif %}","{% if n not in [1] and n in [7] %}a{% endif %}", "{% filter replace('a', 'b') %}aaa{% endfilter %}", "{% filter upper|replace('A','x') %}a b{% endfilter %}","{% set x | trim | upper %}  ab {% endset %}[{{ x }}]", "{{ n if n }}", "{{ loop.x if loop is defined else 'q' }}", "{% generation %}{{ n }}{%- endgeneration %}\n", "{%- generation %}\n a\n {%- endgeneration %}", "{% generation -%} a {% endgeneration %} b","{{ s[:5] ~ '...' if s|length > 5 else s }}", "{{ l[::-1][0] }}{{ l[::-1]|first }}{{ l[-1:-3:-1][0] }}{{ (l[::2])|length }}{{ nest.a.b[::-1][0].c }}{{ s.strip()[::2] }}{{ l[0:2:1]|join }}{{ -l[::-2][0] }}{{ f(l[::2]) if fa else 1 }}")
    add(*[f"{a} + {b}" for a in ["'<'|safe", "'<a>'", "s|e", "q", "('<' ~ n)|safe", "d|tojson|safe", "'%s' % '<'"] for b in ["'<'|safe", "'&'", "q|escape", "d|tojson"]])
    add("'<'|safe + '>' + '&'", "'&' + '<'|safe + q", "n + s|e|length", "'a' ~ '<'|safe + '<' ~ '>'", "l + ['<'|safe]", "(1,) + ('<'|safe,)", "n - 2 + ('<'|safe)|length - 1", "'<'|safe + n|string", "f + ('a'|e)|length", "-n + ('a'|e)|length * 2")


class Grammar:
    """Draws expressions by type, and statements around them."""

    def __init__(self, seed):
        self.random = random.Random(seed)

    def pick(self, *options):
        choice = self.random.choice(options)
        return choice() if callable(choice) else choice

    def text(self, depth=3):
        if depth == 0:
            return self.pick("s", "w", "csv", "u", "'ab'", "'x-y'", "lo[0].n", "d.a", "ls[1]", "\"it's\"", "'\\n'", "lo[-1]['g']")
        inner = lambda: self.text(depth - 1)
        return self.pick(
            lambda: f"({inner()} ~ {self.any(depth - 1)})",
            lambda: f"{inner()}.{self.pick('strip', 'upper', 'lower', 'title', 'lstrip', 'rstrip', 'capitalize')}()",
            lambda: f"{inner()}|{self.pick('trim', 'upper', 'lower', 'title', 'string', 'capitalize', 'escape')}",
            lambda: f"{inner()}.replace({self.text(0)}, {self.text(0)})",
            lambda: f"({inner()} if {self.truth(depth - 1)} else {inner()})",
            lambda: f"{inner()}[{self.pick('1:', ':3', '::2', '-3:', '::-1', ':-1', '1:5:2')}]",
            lambda: f"{self.texts(depth - 1)}|join({self.text(0)})",
            lambda: f"({self.pick(chr(39) + '%s' + chr(39), chr(39) + '[%s]' + chr(39))} % {self.any(depth - 1)})",
            lambda: f"'{{}}:{{:>4}}'.format({self.any(depth - 1)}, {self.number(depth - 1)})",
            lambda: f"{self.any(depth - 1)}|tojson",
            lambda: f"({inner()} or {inner()})",
            lambda: f"{inner()}.split({self.pick('', chr(39) + ',' + chr(39), chr(39) + ' ' + chr(39) + ', 1')})|first",
            lambda: f"nope|default({inner()})",
            lambda: f"{inner()}.rpartition({self.text(0)})[{self.pick(0, 1, 2, -1)}]",
            lambda: f"({inner()} * {self.pick(0, 1, 2, 'z', 't')})",
            lambda: f"{inner()}|indent({self.pick(2, 4)}{self.pick('', ', true', ', false, true')})",
        )

    def number(self, depth=3):
        if depth == 0:
            return self.pick("n", "z", "neg", "3", "lo[1].v", "l[0]", "2", "10")
        inner = lambda: self.number(depth - 1)
        return self.pick(
            lambda: f"({inner()} {self.pick('+', '-', '*')} {inner()})",
            lambda: f"({inner()} {self.pick('//', '%')} {self.pick(2, 3, 7)})",
            lambda: f"({inner()} + {inner()} % 5)",
            lambda: f"{self.text(depth - 1)}|length",
            lambda: f"{self.texts(depth - 1)}|length",
            lambda: f"({inner()} if {self.truth(depth - 1)} else {inner()})",
            lambda: f"{inner()}|abs",
            lambda: f"-{inner()}",
            lambda: f"{self.text(depth - 1)}.count({self.text(0)})",
            lambda: f"{self.text(depth - 1)}.find({self.text(0)})",
            lambda: f"{self.text(depth - 1)}|int({self.pick(0, 5)})",
            lambda: f"[{inner()}, {inner()}]|{self.pick('sum', 'max', 'min', 'first', 'last')}",
        )

    def truth(self, depth=2):
        if depth == 0:
            return self.pick("t", "fa", "n", "e", "l", "no", "nope", "de", "d.b")
        inner = lambda: self.truth(depth - 1)
        return self.pick(
            lambda: f"({inner()} {self.pick('and', 'or')} {inner()})",
            lambda: f"(not {inner()})",
            lambda: f"({self.number(depth - 1)} {self.pick('<', '>', '==', '!=', '<=', '>=')} {self.number(depth - 1)})",
            lambda: f"({self.text(depth - 1)} {self.pick('in', 'not in')} {self.text(depth - 1)})",
            lambda: f"({self.text(depth - 1)} {self.pick('in', 'not in')} {self.texts(depth - 1)})",
            lambda: f"({self.any(depth - 1)} is {self.pick('', 'not ')}{self.pick('string', 'number', 'mapping', 'none', 'defined', 'iterable', 'boolean', 'sequence')})",
            lambda: f"{self.text(depth - 1)}.{self.pick('startswith', 'endswith')}({self.text(0)})",
            lambda: f"({self.number(depth - 1)} is {self.pick('odd', 'even', 'divisibleby 3', 'gt 2', 'eq 7')})",
        )

    def texts(self, depth=2):
        if depth == 0:
            return self.pick("ls", "csv.split(',')", "['x', 'y']", "[s, w]", "lo|map(attribute='n')|list", "d.keys()|list")
        inner = lambda: self.texts(depth - 1)
        return self.pick(
            lambda: f"({inner()} + {inner()})",
            lambda: f"({inner()})|{self.pick('sort', 'reverse', 'unique', 'list')}|list",
            lambda: f"({inner()})[{self.pick('1:', ':2', '::-1', '-2:')}]",
            lambda: f"({inner()})|map('{self.pick('upper', 'lower', 'trim', 'length', 'string')}')|map('string')|list",
            lambda: f"({inner()})|{self.pick('select', 'reject')}('in', {self.texts(0)})|list",
            lambda: f"lo|{self.pick('selectattr', 'rejectattr')}('g', '{self.pick('eq', 'ne')}', 'p')|map(attribute='n')|list",
            lambda: f"[{self.text(depth - 1)}, {self.text(depth - 1)}]",
            lambda: f"{self.text(depth - 1)}.{self.pick('splitlines', 'split')}()",
            lambda: f"({inner()} if {self.truth(depth - 1)} else {inner()})",
        )

    def any(self, depth=2):
        return self.pick(
            lambda: self.text(depth), lambda: self.number(depth), lambda: self.truth(depth), lambda: self.texts(depth),
            "d", "lm", "lo[0]", "f", "h", "no", "(1, 'a')", "{'k': [1.5, none]}", "nest.a",
        )

    def mark(self):
        return self.pick("", "", "", "-")

    def blank(self):
        return self.pick("", " ", "\n", "\n  ", "x", " y \n")

    def statements(self, depth):
        return "".join(self.blank() + self.statement(depth) for _ in range(self.pick(1, 2, 3))) + self.blank()

    def statement(self, depth):
        tag = lambda inside: f"{{%{self.mark()} {inside} {self.mark()}%}}"
        if depth == 0:
            return f"{{{{{self.mark()} {self.any(2)} {self.mark()}}}}}"
        body = lambda: self.statements(depth - 1)
        return self.pick(
            lambda: tag(f"if {self.truth()}") + body() + tag("else") + body() + tag("endif"),
            lambda: tag(f"if {self.truth()}") + body() + tag(f"elif {self.truth()}") + body() + tag("endif"),
            lambda: tag(f"for i in {self.texts()}") + "{{ loop.index }}{{ i }}" + body() + tag("endfor"),
            lambda: tag(f"for i in l if i {self.pick('>', '<', '!=')} {self.pick(1, 2, 3)}") + "{{ i }}" + tag(f"if {self.truth()}") + tag(self.pick("break", "continue")) + tag("endif") + body() + tag("endfor"),
            lambda: tag(f"for i in {self.texts()}") + body() + tag("else") + body() + tag("endfor"),
            lambda: tag("for k, v in d.items()") + "{{ k ~ v }}{{ ', ' if not loop.last }}" + tag("endfor"),
            lambda: tag(f"set x = {self.any()}") + "{{ x }}" + body(),
            lambda: tag("set y") + body() + tag("endset") + "[{{ y | trim }}]",
            lambda: tag(f"set ns = namespace(a={self.number()})") + tag("for i in l") + tag("set ns.a = ns.a + i") + tag("endfor") + "{{ ns.a }}",
            lambda: tag(f"macro m(a, b={self.text(1)})") + "{{ a }}{{ b }}" + body() + tag("endmacro") + f"{{{{ m({self.any(1)}) }}}}{{{{ m(1, b={self.text(1)}) | upper }}}}",
            lambda: tag("macro c(a)") + "<{{ a }}{{ caller() }}>" + tag("endmacro") + tag(f"call c({self.any(1)})") + body() + tag("endcall"),
            lambda: tag(f"filter {self.pick('upper', 'trim', 'indent(2)')}") + body() + tag("endfilter"),
            lambda: tag(f"with a = {self.any(1)}") + "{{ a }}" + body() + tag("endwith"),
            lambda: tag("generation") + body() + tag("endgeneration"),
            lambda: "{#" + self.mark() + " note " + self.mark() + "#}" + body(),
            lambda: "{% raw %}" + self.blank() + "{{ no }}" + self.blank() + "{% endraw %}",
        )


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--random", type=int, default=500)
    parser.add_argument("file")
    options = parser.parse_args()
    enumerate_features()
    grammar = Grammar(options.seed)
    for number in range(options.random):
        CASES.append(grammar.statements(number % 3))
    rendered = {}
    for source in CASES:
        if source in rendered or any(re.search(pattern, source) for pattern in DIFFERS):
            continue
        try:
            text = compiled(source).render(messages=[], add_generation_prompt=False, tools=None, documents=None, **json.loads(json.dumps(VARIABLES)))
        except Exception:
            continue
        if " at 0x" not in text and "<" + "generator" not in text:
            rendered[source] = text
    with open(options.file, "w") as file:
        json.dump({"variables": VARIABLES, "rendered": rendered}, file, ensure_ascii=False, indent=0)
        file.write("\n")


if __name__ == "__main__":
    main()
