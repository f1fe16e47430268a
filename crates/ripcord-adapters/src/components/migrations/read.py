"""Reads migrations of Alembic and Django without running any of them; prints what they do as JSON.

Only the syntax is looked at, so that neither the project nor its database is needed, and nothing is imported.
"""
import ast
import json
import os
import sys

TOOL, ROOT = sys.argv[1], sys.argv[2]
SKIPPED = {"venv", ".venv", "env", "node_modules", "site-packages", "__pycache__", ".git"}


def const(node):
    """The value of a constant expression, else None."""
    if node is None:
        return None
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return None


def text(node):
    """The SQL in a string, or in text("..")."""
    if isinstance(node, ast.Call) and node.args and last_name(node.func) == "text":
        return text(node.args[0])
    value = const(node)
    return value if isinstance(value, str) else None


def last_name(node):
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def dotted(node):
    if isinstance(node, ast.Attribute):
        return dotted(node.value) + "." + node.attr
    return node.id if isinstance(node, ast.Name) else "?"


def argument(call, position, name):
    for keyword in call.keywords:
        if keyword.arg == name:
            return keyword.value
    return call.args[position] if position is not None and position < len(call.args) else None


def string(call, position, name):
    value = const(argument(call, position, name))
    return value if isinstance(value, str) else "?"


def nothing(statement):
    """Whether a statement does nothing: `pass`, a text, `return`."""
    if isinstance(statement, ast.Return):
        return statement.value is None or const(statement.value) is None and isinstance(statement.value, ast.Constant)
    return isinstance(statement, ast.Pass) or isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def file_list():
    for directory, names, files in os.walk(ROOT):
        names[:] = sorted(n for n in names if n not in SKIPPED and not os.path.exists(os.path.join(directory, n, "pyvenv.cfg")))
        for name in sorted(files):
            if name.endswith(".py"):
                yield os.path.join(directory, name)


def parsed(path):
    with open(path, "rb") as file:
        source = file.read()
    return ast.parse(source, path)


def assigned(body):
    found = {}
    for statement in body:
        if isinstance(statement, ast.Assign):
            for target in statement.targets:
                if isinstance(target, ast.Name):
                    found[target.id] = statement.value
        elif isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name) and statement.value:
            found[statement.target.id] = statement.value
    return found


def several(value):
    if value is None:
        return []
    return [value] if isinstance(value, str) else [one for one in value if isinstance(one, str)]


# Alembic


def column_effect(table, column):
    name = string(column, 0, "name") if isinstance(column, ast.Call) else "?"
    what = f"column {table}.{name}"
    if not isinstance(column, ast.Call):
        return ["unknown", what]
    nullable = const(argument(column, None, "nullable"))
    generated = any(isinstance(a, ast.Call) and last_name(a.func) in ("Identity", "Computed") for a in column.args)
    default = argument(column, None, "server_default")
    filled = generated or default is not None and not (isinstance(default, ast.Constant) and default.value is None)
    if const(argument(column, None, "unique")) or const(argument(column, None, "primary_key")):
        return ["tightens", what + ", unique"]
    if nullable is False and not filled:
        return ["tightens", what + ", not null without default"]
    return ["adds", what]


def altered(call, table, column):
    what, effects = f"{table}.{column}", []
    names = {keyword.arg: keyword.value for keyword in call.keywords}
    if "new_column_name" in names or "name" in names:
        effects.append(["renames", f"renames {what}"])
    if "type_" in names:
        effects.append(["retypes", f"{what} becomes {ast.unparse(names['type_'])}"])
    if "nullable" in names:
        effects.append(["loosens", what + " may be null"] if const(names["nullable"]) else ["tightens", what + " not null"])
    if "server_default" in names:
        gone = isinstance(names["server_default"], ast.Constant) and names["server_default"].value in (None, False)
        effects.append(["tightens", what + " without default"] if gone else ["loosens", "default of " + what])
    return effects or [["unknown", "changes " + what]]


SILENT = {"get_bind", "get_context", "f", "print", "debug", "info", "warning", "create_table_comment", "drop_table_comment", "inspect"}


def operation(call, table):
    """The effects of one `op.` or batch operation; `table` is set inside a batch."""
    name = last_name(call.func)
    at = 0 if table is None else -1
    on = table if table is not None else string(call, 0, "table_name")
    if name in SILENT:
        return []
    if name == "create_table":
        return [["adds", "table " + string(call, 0, "table_name")]]
    if name == "drop_table":
        return [["destroys", "drops table " + string(call, 0, "table_name")]]
    if name == "rename_table":
        return [["renames", "renames " + string(call, 0, "old_table_name")]]
    if name == "add_column":
        return [column_effect(on, argument(call, at + 1, "column"))]
    if name == "drop_column":
        return [["destroys", f"drops column {on}.{string(call, at + 1, 'column_name')}"]]
    if name == "alter_column":
        return altered(call, on, string(call, at + 1, "column_name"))
    if name == "create_index":
        index = string(call, 0, "index_name")
        return [["tightens", "unique index " + index] if const(argument(call, None, "unique")) else ["adds", "index " + index]]
    if name == "drop_index":
        return [["loosens", "drops index " + string(call, 0, "index_name")]]
    if name in ("create_unique_constraint", "create_foreign_key", "create_check_constraint", "create_primary_key", "create_exclude_constraint"):
        return [["tightens", "constraint " + string(call, 0, "constraint_name")]]
    if name == "drop_constraint":
        return [["loosens", "drops constraint " + string(call, 0, "constraint_name")]]
    if name == "bulk_insert":
        return [["adds", "rows in " + (ast.unparse(call.args[0]) if call.args else "?")]]
    if name in ("execute", "exec_driver_sql", "run"):
        sql = text(argument(call, 0, "sqltext"))
        return [["sql", sql]] if sql is not None else [["unknown", ast.unparse(call)[:80]]]
    return [["unknown", ast.unparse(call)[:80]]]


class Walk:
    def __init__(self, functions):
        self.functions, self.seen = functions, set()

    def body(self, statements, batches):
        effects = []
        for statement in statements:
            effects += self.statement(statement, batches)
        return effects

    def statement(self, statement, batches):
        if isinstance(statement, (ast.With, ast.AsyncWith)):
            inner = dict(batches)
            for item in statement.items:
                call = item.context_expr
                if isinstance(call, ast.Call) and last_name(call.func) == "batch_alter_table" and isinstance(item.optional_vars, ast.Name):
                    inner[item.optional_vars.id] = string(call, 0, "table_name")
            return self.body(statement.body, inner)
        if isinstance(statement, (ast.If, ast.For, ast.While, ast.Try)):
            parts = [statement.body, statement.orelse, getattr(statement, "finalbody", [])]
            parts += [handler.body for handler in getattr(statement, "handlers", [])]
            return [effect for part in parts for effect in self.body(part, batches)]
        if isinstance(statement, (ast.Expr, ast.Assign, ast.AnnAssign, ast.Return)) and isinstance(statement.value, ast.Call):
            return self.call(statement.value, batches, isinstance(statement, ast.Expr))
        if nothing(statement) or isinstance(statement, (ast.Assign, ast.AnnAssign, ast.Import, ast.ImportFrom, ast.FunctionDef)):
            return []
        if isinstance(statement, (ast.Raise, ast.Assert)):
            return []
        return [["unknown", ast.unparse(statement)[:80]]]

    def call(self, call, batches, alone):
        owner = call.func.value if isinstance(call.func, ast.Attribute) else None
        if isinstance(call.func, ast.Name) and call.func.id in self.functions and call.func.id not in self.seen:
            self.seen.add(call.func.id)
            effects = self.body(self.functions[call.func.id].body, batches)
            self.seen.discard(call.func.id)
            return effects
        if isinstance(owner, ast.Name) and owner.id in batches:
            return operation(call, batches[owner.id])
        if isinstance(owner, ast.Name) and owner.id == "op":
            return operation(call, None)
        if last_name(call.func) in ("execute", "exec_driver_sql") or last_name(call.func) in SILENT:
            return operation(call, None)
        return [["unknown", ast.unparse(call)[:80]]] if alone else []


def function_body(functions, name):
    function = functions.get(name)
    if function is None:
        return {"missing": True}
    statements = [s for s in function.body if not nothing(s)]
    refused = next((s for s in statements if isinstance(s, ast.Raise)), None)
    if refused is not None:
        return {"refuses": ast.unparse(refused)[:120]}
    return {"does": Walk(functions).body(statements, {})}


def alembic():
    found = []
    for path in file_list():
        try:
            module = parsed(path)
        except (SyntaxError, ValueError):
            continue
        names = assigned(module.body)
        revision = const(names.get("revision"))
        if not isinstance(revision, str) or "down_revision" not in names:
            continue
        functions = {s.name: s for s in module.body if isinstance(s, ast.FunctionDef)}
        along = several(const(names["down_revision"]))
        said = (ast.get_docstring(module) or "").strip().split("\n")[0]
        found.append({
            "id": revision, "name": said or os.path.basename(path)[:-3], "file": os.path.relpath(path, ROOT),
            "along": along, "needs": several(const(names.get("depends_on"))),
            "up": function_body(functions, "upgrade"), "down": function_body(functions, "downgrade"),
        })
    return found


# Django


def field_effect(label, call):
    field = argument(call, 2, "field")
    what = f"column {label}.{string(call, 0, 'model_name')}.{string(call, 1, 'name')}"
    if not isinstance(field, ast.Call):
        return ["unknown", what]
    if last_name(field.func) == "ManyToManyField":
        return ["adds", "table of " + what]
    if const(argument(field, None, "null")) or argument(field, None, "db_default") is not None:
        return ["adds", what]
    # A `default` is the code's: it is taken off the column as soon as the rows that are there have it.
    return ["tightens", what + ", not null without a default in the database"]


def code(node, functions):
    """What a function handed to RunPython does: nothing, or nobody can tell."""
    if dotted(node).endswith("RunPython.noop"):
        return None
    function = functions.get(last_name(node))
    if function is not None and all(nothing(s) for s in function.body):
        return None
    return "code `" + dotted(node) + "`"


def statements(node):
    """The SQL of RunSQL: a text, or a list of texts and of texts with parameters; None where it cannot be read."""
    if dotted(node).endswith("RunSQL.noop"):
        return []
    value = const(node)
    if isinstance(value, str):
        return [value] if value.strip() else []
    if isinstance(value, (list, tuple)):
        return [one if isinstance(one, str) else one[0] for one in value if one]
    return None


def django_operation(call, label, functions):
    """Effects forward, effects backward, and why there is no way backward."""
    name = last_name(call.func)
    model = string(call, 0, "model_name")
    part = f"{label}.{model}.{string(call, 1, 'name')}"
    if name == "CreateModel":
        table = f"table of {label}.{string(call, 0, 'name')}"
        return [["adds", table]], [["destroys", "drops " + table]], None
    if name == "DeleteModel":
        table = f"table of {label}.{string(call, 0, 'name')}"
        return [["destroys", "drops " + table]], [["adds", table]], None
    if name == "AddField":
        return [field_effect(label, call)], [["destroys", "drops column " + part]], None
    if name == "RemoveField":
        return [["destroys", "drops column " + part]], [["adds", "column " + part]], None
    if name == "AlterField":
        return [["retypes", part + " becomes another field"]], [["retypes", part + " becomes the former field"]], None
    if name in ("RenameField", "RenameModel", "AlterModelTable", "RenameIndex"):
        return [["renames", f"renames {label}.{model}"]], [["renames", f"renames {label}.{model} back"]], None
    if name == "AddIndex":
        return [["adds", f"index of {label}.{model}"]], [["loosens", f"drops an index of {label}.{model}"]], None
    if name == "RemoveIndex":
        return [["loosens", f"drops an index of {label}.{model}"]], [["adds", f"index of {label}.{model}"]], None
    if name == "AddConstraint":
        return [["tightens", f"constraint of {label}.{model}"]], [["loosens", f"drops a constraint of {label}.{model}"]], None
    if name == "RemoveConstraint":
        return [["loosens", f"drops a constraint of {label}.{model}"]], [["tightens", f"constraint of {label}.{model}"]], None
    if name in ("AlterUniqueTogether", "AlterIndexTogether", "AlterOrderWithRespectTo", "AlterConstraint"):
        return [["tightens", f"constraint of {label}.{model}"]], [["tightens", f"constraint of {label}.{model}"]], None
    if name in ("AlterModelOptions", "AlterModelManagers", "AlterModelTableComment"):
        return [], [], None
    if name == "SeparateDatabaseAndState":
        operations = argument(call, 0, "database_operations")
        return together(operations, label, functions) if operations is not None else ([], [], None)
    if name == "RunPython":
        forward, backward = argument(call, 0, "code"), argument(call, 1, "reverse_code")
        does = code(forward, functions) if forward is not None else None
        up = [["unknown", does]] if does else []
        if backward is None:
            return up, [], ("refuses", "RunPython without reverse_code")
        undoes = code(backward, functions)
        if undoes is None:
            return up, [], ("noop", "RunPython with a reverse that does nothing") if up else None
        return up, [["unknown", undoes]], None
    if name == "RunSQL":
        forward, backward = argument(call, 0, "sql"), argument(call, 1, "reverse_sql")
        does = statements(forward) if forward is not None else None
        up = [["unknown", "SQL that is made when it runs"]] if does is None else [["sql", one] for one in does]
        if backward is None:
            return up, [], ("refuses", "RunSQL without reverse_sql")
        undoes = statements(backward)
        if undoes == []:
            return up, [], ("noop", "RunSQL with a reverse that does nothing") if up else None
        return up, [["unknown", "SQL that is made when it runs"]] if undoes is None else [["sql", one] for one in undoes], None
    return [["unknown", dotted(call.func)]], [["unknown", dotted(call.func) + " backwards"]], None


def together(operations, label, functions):
    if not isinstance(operations, (ast.List, ast.Tuple)):
        return [["unknown", "operations that are made when it runs"]], [["unknown", "operations that are made when it runs"]], None
    up, down, against = [], [], None
    for call in operations.elts:
        if not isinstance(call, ast.Call):
            up.append(["unknown", ast.unparse(call)[:80]])
            down.append(["unknown", ast.unparse(call)[:80]])
            continue
        forward, backward, why = django_operation(call, label, functions)
        up, down, against = up + forward, backward + down, against or why
    return up, down, against


def label_of(app):
    """The label of an application: its directory's name, unless its configuration says another."""
    path = os.path.join(app, "apps.py")
    if os.path.exists(path):
        try:
            for statement in parsed(path).body:
                if isinstance(statement, ast.ClassDef):
                    label = const(assigned(statement.body).get("label"))
                    if isinstance(label, str):
                        return label
        except (SyntaxError, ValueError):
            pass
    return os.path.basename(app)


def django():
    found = []
    for path in file_list():
        directory, name = os.path.split(path)
        if os.path.basename(directory) != "migrations" or name.startswith("_"):
            continue
        module = parsed(path)
        classes = [s for s in module.body if isinstance(s, ast.ClassDef) and s.name == "Migration"]
        if not classes:
            continue
        label = label_of(os.path.dirname(directory))
        names = assigned(classes[0].body)
        functions = {s.name: s for s in module.body if isinstance(s, ast.FunctionDef)}
        needs = []
        for one in getattr(names.get("dependencies"), "elts", []):
            pair = const(one)
            if isinstance(pair, tuple) and len(pair) == 2 and not str(pair[1]).startswith("__"):
                needs.append((str(pair[0]), f"{pair[0]}.{pair[1]}"))
        empty = ast.List(elts=[], ctx=ast.Load())
        up, down, against = together(names.get("operations", empty), label, functions)
        found.append({
            "id": f"{label}.{name[:-3]}", "name": f"{label} {name[:-3]}", "file": os.path.relpath(path, ROOT),
            "along": [need for app, need in needs if app == label],
            "needs": [need for app, need in needs if app != label],
            "up": {"does": up}, "down": {against[0]: against[1]} if against else {"does": down},
        })
    return found


json.dump({"alembic": alembic, "django": django}[TOOL](), sys.stdout)
