# What jq has and jaq has not, or has in another way. Names that begin with `_` are ours.

# jaq changes what it deletes from one place after the other, so that places behind the first have moved, and stumbles over what is
# not there. As jq does, these delete from the last to the first, and what is not there stays away.
def _delpath($path):
  if $path == [] or . == null then null
  elif ($path | length) == 1 then
    if type == "array" and ($path[0] | type) == "number" and ($path[0] >= length or $path[0] < -length) then .
    else .[$path[0]] |= empty end
  elif .[$path[0]] == null then .
  else .[$path[0]] |= _delpath($path[1:]) end;
def delpaths($paths): reduce ($paths | sort | reverse[]) as $path (.; _delpath($path));
def del(f): delpaths([path(f)]);

# jaq sets nothing within null; jq makes what is missing.
def setpath($path; $value):
  if $path == [] then $value
  elif . == null and ($path[0] | type) == "string" then { ($path[0]): (null | setpath($path[1:]; $value)) }
  elif . == null and ($path[0] | type) == "number" then [] | setpath($path; $value)
  elif type == "array" and ($path[0] | type) == "number" and $path[0] >= length then
    . + [range(length; $path[0]) | null] + [null | setpath($path[1:]; $value)]
  else .[$path[0]] |= setpath($path[1:]; $value) end;

# jaq takes entries with `key` and `value` only.
def from_entries:
  reduce .[] as $entry ({}; . + {
    ($entry
      | if .key == null then .k // .name // .Name // .K // .Key else .key end
      | if type == "string" then . else tojson end):
    ($entry | if has("value") then .value elif has("v") then .v else .Value end)
  });
def with_entries(f): to_entries | map(f) | from_entries;

# jaq joins null as `null`, and trims nothing but texts.
def join($separator):
  reduce .[] as $part (null;
    (if . == null then "" else . + $separator end)
    + ($part | if . == null then "" elif type == "boolean" or type == "number" then tojson else . end))
  // "";
def _both_texts($text): type == "string" and ($text | type) == "string";
def ltrimstr($text): if _both_texts($text) and startswith($text) then .[($text | length):] else . end;
def rtrimstr($text): if _both_texts($text) and endswith($text) then .[:length - ($text | length)] else . end;
def trimstr($text): ltrimstr($text) | rtrimstr($text);

def toarray: if type == "array" then . else [.] end;
def ascii: [.] | implode;
def leaf_paths: paths(scalars);

# As in SQL.
def IN(values): any(values == .; .);
def IN(source; values): any(source == values; .);
def INDEX(stream; key): reduce stream as $row ({}; . + { ($row | key | tostring): $row });
def INDEX(key): INDEX(.[]; key);

# Tables.
def _cells(name; of_text):
  if type != "array" then error("\(tojson) cannot be formatted as \(name): it is no array") else . end
  | map(
      if type == "string" then of_text
      elif type == "number" or type == "boolean" then tojson
      elif . == null then ""
      else error("\(tojson) cannot stand in a row of \(name)") end);
def @csv: _cells("csv"; "\"" + (split("\"") | join("\"\"")) + "\"") | join(",");
def @tsv:
  _cells("tsv"; (split("\\") | join("\\\\")) | (split("\t") | join("\\t")) | (split("\n") | join("\\n"))
    | (split("\r") | join("\\r")))
  | join("\t");
