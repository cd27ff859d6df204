-- Recovery after a loss of acknowledged writes.

-- Gives the data a new history, unless another node has done so. By then, every write under the earlier history has
-- been committed or will fail.
create function {s}.rg_adopt(
    p_known bytea, p_new bytea, p_store bytea,
    out o_status text, out o_history bytea, out o_server text, out o_written bigint, out o_writes bigint
) language plpgsql as $$
declare
    known {s}.head%rowtype;
begin
    perform {s}.rg_settings();
    perform pg_advisory_xact_lock(hashtext('{s}'), 5);
    select * into known from {s}.head for update;
    if not found then
        o_status := 'headless';
        return;
    end if;
    if known.store <> p_store then
        o_status := 'differs';
        return;
    end if;
    o_status := 'adopted';
    o_history := known.history;
    if known.history = substr(p_known, 1, 8) then
        o_history := p_new;
        update {s}.head set history = p_new, adopted = {s}.rg_now();
    else
        perform {s}.rg_touch();
    end if;
    select last_value into o_writes from {s}.writes;
    o_server := {s}.rg_server();
    o_written := {s}.rg_written();
end
$$;

-- Records that a node has written back what it knew. Returns whether all nodes have.
create function {s}.rg_restoration(
    p_known bytea, p_node bytea, p_patience bigint,
    out o_status text, out o_adopted bigint, out o_complete boolean
) language plpgsql as $$
begin
    perform {s}.rg_begin(p_known, true);
    o_status := 'restoration';
    select adopted into strict o_adopted from {s}.head;
    if o_adopted = 0 then
        o_complete := true;
        return;
    end if;
    -- The report of the node about itself follows with its next beat.
    insert into {s}.node values (p_node, {s}.rg_now(), '{}', substr(p_known, 1, 8))
        on conflict (id) do update set restored = excluded.restored
        where node.restored is distinct from excluded.restored;
    o_complete := {s}.rg_now() >= {s}.rg_plus(o_adopted, p_patience) or not exists (
        select 1 from {s}.node
        where id <> p_node and {s}.rg_plus(beat, p_patience) >= o_adopted
            and restored is distinct from substr(p_known, 1, 8)
    );
end
$$;

create function {s}.rg_predates(p_known bytea, p_id uuid, out o_status text, out o_predates boolean)
language plpgsql as $$
begin
    perform {s}.rg_begin(p_known, false);
    o_status := 'predates';
    o_predates := (select adopted from {s}.head) > 0
        and exists (select 1 from {s}.session where id = p_id and history <> substr(p_known, 1, 8));
end
$$;
