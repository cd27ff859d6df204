-- Returns the nodes that have sent a beat lately. The function writes, because the promotion of a key must not
-- depend on the reply of a server that has been cut off.
create function {s}.rg_nodes(p_known bytea, p_within bigint) returns table (o_status text, o_beat bigint, o_said bytea)
language plpgsql as $$
begin
    perform {s}.rg_begin(p_known, true);
    perform {s}.rg_touch();
    return query select 'node', beat, said from {s}.node where beat >= {s}.rg_now() - p_within order by id;
end
$$;
